"""One round of a large model on the server: how often a slice is packed, seconds, peak memory.

    python benchmarks/pack_once.py [--before CHECKOUT] [--weights 100e6] [--clients 32]

A net of one hidden layer is cut into as many slices as there are clients and sent in int8; each
reply is the message's own bytes, so that clients cost nothing. With a checkout of an older commit,
both are run alternately, in separate processes, and their ratio is printed:

    git worktree add /elsewhere 2fcc4eb
    python benchmarks/pack_once.py --before /elsewhere
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

RUNS = 3

# Runs in both releases, so it takes every name from where that release has it.
ROUND = """
import json, logging, resource, sys, time
import numpy as np
from flwr.app import ArrayRecord, Array, ConfigRecord, Message, MetricRecord, RecordDict
logging.getLogger("flwr").setLevel(logging.ERROR)
weights, clients = int(float(sys.argv[1])), int(sys.argv[2])
try:
    from flower_ist.grids import chain, packed as filters
    from flower_ist.strategies.submodel import ISTStrategy
    from flower_ist.submodels.axes import mlp_axes
    from flower_ist.grids.inprocess import InProcessGrid
    from flower_ist.strategies import judge
    users = (filters, judge)
    def wrapped(grid): return chain.FilteredGrid(grid, [filters.Packed("int8", "int8")])
except ImportError:
    from flower_ist import compressed_grid, judge, slice_message
    from flower_ist.strategy import ISTStrategy
    from flower_ist.axes import mlp_axes
    from flower_ist.inprocess import InProcessGrid
    users = (compressed_grid, judge, slice_message)
    def wrapped(grid): return compressed_grid.CompressedGrid(grid, "int8", "int8")
from flwr.clientapp import ClientApp

calls = {"pack": 0, "unpack": 0}
def counted(name, function):
    def call(*args, **options):
        calls[name] += 1
        return function(*args, **options)
    return call
for module in users:
    for name in calls:
        if hasattr(module, name):
            setattr(module, name, counted(name, getattr(module, name)))

class Echo(InProcessGrid):
    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            arrays = message.content["arrays"]
            metrics = MetricRecord({"num-examples": 10})
            content = RecordDict({"arrays": arrays, "metrics": metrics})
            replies.append(Message(content, reply_to=message))
        return replies

dim, classes = 1024, 10
width = clients * round(weights / (dim + classes) / clients)
model = {
    "fc1.weight": np.full((width, dim), 0.01, np.float32),
    "fc1.bias": np.zeros(width, np.float32),
    "fc2.weight": np.full((classes, width), 0.01, np.float32),
    "fc2.bias": np.zeros(classes, np.float32),
}
count = sum(w.size for w in model.values())
axes = mlp_axes({name: w.shape for name, w in model.items()})
record = ArrayRecord({name: Array(w) for name, w in model.items()})
copies = []
for _ in range(3):
    start = time.process_time()
    copied = {name: w.copy() for name, w in model.items()}
    copies.append(time.process_time() - start)
    del copied
del model
strategy = ISTStrategy(axes, num_slices=clients, min_train_nodes=1, min_available_nodes=1)
grid = wrapped(Echo(ClientApp(), clients))
strategy.registry = getattr(strategy, "registry", None) or strategy.roster
strategy.registry.meet = lambda grid, ids: [
    type("C", (), {"name": f"c{i:03}", "node_id": i, "facts": {}})() for i in ids
]
for server_round in range(1, 5):  # the first ones load the model and take memory
    calls.update(pack=0, unpack=0)
    start = time.process_time()
    messages = strategy.configure_train(server_round, record, ConfigRecord({}), grid)
    record, _ = strategy.aggregate_train(server_round, grid.send_and_receive(messages))
    del messages
seconds = time.process_time() - start
print(json.dumps({
    "weights": count,
    "seconds": seconds,
    "copies": seconds / min(copies),
    "packed a slice": calls["pack"] / clients,
    "unpacked a slice": calls["unpack"] / clients,
    "peak over the model": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / (4 * count),
}))
"""


def one_round(checkout: Path, weights: float, clients: int) -> dict[str, float]:
    """Return what one round took, in a process of its own with the code of a checkout."""
    command = [sys.executable, "-W", "ignore", "-c", ROUND, str(weights), str(clients)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the best of three runs of each checkout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="a checkout of an older commit")
    parser.add_argument("--weights", type=float, default=100e6)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    checkouts = {"now": Path(__file__).absolute().parent.parent}
    if options.before:
        checkouts["before"] = options.before.absolute()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for _ in range(RUNS):
        for name, checkout in checkouts.items():
            found[name].append(one_round(checkout, options.weights, options.clients))
    for name, runs in found.items():
        best = min(runs, key=lambda run: run["seconds"])
        print(f"{name}: " + ", ".join(f"{key} {value:,.2f}" for key, value in best.items()))
    if options.before:
        pairs = zip(found["now"], found["before"], strict=True)
        ratios = sorted(now["seconds"] / before["seconds"] for now, before in pairs)
        print(f"seconds now / before, median of {RUNS}: {ratios[RUNS // 2]:.2f}")


if __name__ == "__main__":
    main()
