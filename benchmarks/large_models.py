"""A round of a large model on the server: CPU seconds and memory, against memcpy and FedAvg.

    python benchmarks/large_models.py [--quick] [--plot FILE] [--profile]

A net of one hidden layer is cut into as many slices as there are clients and sent in int8; a reply
is the message's own bytes, so that clients cost nothing. Flower's FedAvg sends the whole model as
it does by itself, in float32, and its replies are copies. Seconds are also in copies of the model
(memcpy into memory that is there), measured in the same process; the peak is what the process holds
above what it held before there was a model, in models. Cases that would not fit 7 GiB are left out.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import logging
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.clients import Client
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.packed import Packed
from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.submodels.axes import mlp_axes

DIM, CLASSES = 1024, 10
ROUNDS = 4  # the first ones load the model and take memory
MOST_BYTES = 7 << 30
WEIGHTS = (1e6, 1e7, 1e8, 3e8)
CLIENTS = (2, 8, 32, 128, 256)
USUAL = (1e8, 32)


@dataclass(frozen=True)
class Found:
    """What a round took: weights, CPU seconds, in copies of the model, and peak in models."""

    strategy: str
    weights: int
    clients: int
    seconds: float
    copies: float
    peak: float


class Echo(InProcessGrid):
    """A grid whose clients reply with what they were sent."""

    def __init__(self, clients: int, *, copied: bool) -> None:
        super().__init__(ClientApp(), clients)
        self._copied = copied

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Answer each message when the reply is asked for."""
        replies = map(self._echo, messages)
        return list(replies) if isinstance(messages, list) else replies

    def _echo(self, message: Message) -> Message:
        record: Any = message.content["arrays"]
        if self._copied:  # as if they had come over the network
            record = ArrayRecord(
                {
                    name: Array(a.dtype, a.shape, a.stype, bytes(bytearray(a.data)))
                    for name, a in record.items()
                }
            )
        metrics = MetricRecord({"num-examples": 10})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)


def model(weights: float, clients: int) -> dict[str, NDArray[np.float32]]:
    """Return a net of about so many weights, whose width all clients divide."""
    width = clients * max(1, round(weights / (DIM + CLASSES) / clients))
    return {
        "fc1.weight": np.full((width, DIM), 0.01, np.float32),
        "fc1.bias": np.zeros(width, np.float32),
        "fc2.weight": np.full((CLASSES, width), 0.01, np.float32),
        "fc2.bias": np.zeros(CLASSES, np.float32),
    }


def memory(field: str) -> int:
    """Return the process' memory in bytes: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(ln.split()[1]) for ln in lines if ln.startswith(field + ":"))


def measured(name: str, weights: float, clients: int, profile: bool) -> Found:
    """Run a few rounds in this process and return what the last one took."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    before = memory("VmRSS")
    tensors = model(weights, clients)
    count = sum(tensor.size for tensor in tensors.values())
    into = {n: np.zeros_like(t) + 1 for n, t in tensors.items()}  # memory that is there

    def copy_all() -> None:
        for name, tensor in tensors.items():
            np.copyto(into[name], tensor)

    copy = min(timed(copy_all) for _ in range(5))
    into.clear()
    record = ArrayRecord({n: Array(t) for n, t in tensors.items()})
    grid: Grid
    if name == "ist":
        axes = mlp_axes({n: tensor.shape for n, tensor in tensors.items()})
        ours = ISTStrategy(axes, num_slices=clients, min_train_nodes=1, min_available_nodes=1)

        def meet(grid: Grid, node_ids: Iterable[int]) -> list[Client]:
            return [Client(i, f"c{i}") for i in node_ids]  # no questions: another benchmark's

        ours.registry.meet = meet  # type: ignore[method-assign]
        grid = FilteredGrid(Echo(clients, copied=False), [Packed("int8", "int8")])
        strategy: FedAvg = ours
    else:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        grid = Echo(clients, copied=True)
    tensors.clear()
    seconds = []
    profiler = cProfile.Profile()
    for server_round in range(1, ROUNDS + 1):
        if server_round == ROUNDS:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            if profile:
                profiler.enable()
        start = time.process_time()
        messages = strategy.configure_train(server_round, record, ConfigRecord({}), grid)
        replies = grid.send_and_receive(messages)
        del messages
        merged, _ = strategy.aggregate_train(server_round, replies)
        del replies
        seconds.append(time.process_time() - start)
        assert merged is not None
        record = merged
        del merged
    peak = (memory("VmHWM") - before) / (4 * count)
    best = min(seconds[-2:])
    if profile:
        profiler.disable()
        print_profile(profiler, best / copy)
    return Found(name, count, clients, best, best / copy, peak)


def print_profile(profiler: cProfile.Profile, copies: float) -> None:
    """Print the functions in which a round spends its time, as shares of its copies.

    What numpy does is part of the function that calls it, but for methods of arrays.
    """
    taken: dict[str, float] = defaultdict(float)
    for entry in profiler.getstats():
        code = entry.code
        taken[code if isinstance(code, str) else code.co_qualname] += entry.inlinetime
    scale = copies / sum(taken.values())
    for function in sorted(taken, key=taken.__getitem__, reverse=True)[:8]:
        print(f"| {function} | {scale * taken.pop(function):.1f} |")
    print(f"| all others | {scale * sum(taken.values()):.1f} |")


def timed(call: Callable[[], object]) -> float:
    """Return a call's CPU seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def cases(quick: bool) -> Iterator[tuple[str, float, int]]:
    """Yield strategy, weights and clients of what fits."""
    for name in ("ist", "fedavg"):
        for weights in WEIGHTS:
            for clients in CLIENTS:
                if USUAL[1] != clients and weights != USUAL[0] / 10:
                    continue  # a row and a column of the table are enough for the exponents
                if quick and (weights > 1e8 or clients > 32):
                    continue
                models = 4 if name == "ist" else 3 + 2 * clients
                if 4 * weights * models <= MOST_BYTES:
                    yield name, weights, clients


def in_a_process(*case: object) -> Found:
    """Measure a case in a process of its own, and return what it found."""
    command = [sys.executable, "-W", "ignore", __file__, "--case", *map(str, case)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Found(**json.loads(output.stdout.splitlines()[-1]))


def exponent(found: list[Found], of: str, by: str) -> float:
    """Return the slope of ``of`` over ``by`` on logarithmic axes, by least squares."""
    points = np.log([[getattr(f, by), getattr(f, of)] for f in found])
    return float(np.polyfit(points[:, 0], points[:, 1], 1)[0])


def plot(found: list[Found], file: Path) -> None:
    """Draw seconds and peaks over weights and over clients."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6), constrained_layout=True)
    for row, what, label in ((0, "seconds", "CPU seconds of a round"), (1, "gib", "peak, GiB")):
        for column, by in ((0, "weights"), (1, "clients")):
            for name in ("ist", "fedavg"):
                line = sorted(series(found, name, by), key=lambda f: getattr(f, by))
                heights = [f.seconds if what == "seconds" else gib(f) for f in line]
                axes[row][column].plot([getattr(f, by) for f in line], heights, "o-", label=name)
            axes[row][column].set(xscale="log", yscale="log", xlabel=by, ylabel=label)
            axes[row][column].legend()
    figure.suptitle("Left: 32 clients. Right: 10 M weights. IST in int8, FedAvg in float32")
    figure.savefig(file, dpi=110)


def gib(found: Found) -> float:
    """Return the peak in GiB."""
    return found.peak * 4 * found.weights / 2**30


def series(found: list[Found], name: str, by: str) -> list[Found]:
    """Return a strategy's cases that differ in weights, or in clients."""
    usual = [f for f in found if f.strategy == name]
    if by == "weights":
        return [f for f in usual if f.clients == USUAL[1]]
    return [f for f in usual if 0.9 < f.weights / (USUAL[0] / 10) < 1.1]


def main() -> None:
    """Print the table and the exponents."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 100 M weights and 32 clients")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--profile", action="store_true", help="of 100 M weights, 32 clients")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        name, weights, clients = options.case
        print(json.dumps(vars(measured(name, float(weights), int(clients), False))))
        return
    if options.profile:
        print(measured("ist", *USUAL, profile=True))
        return
    found = []
    print("| strategy | weights | clients | CPU s | copies of the model | peak, models |")
    print("|---|---|---|---|---|---|")
    for case in cases(options.quick):
        f = in_a_process(*case)
        found.append(f)
        print(
            f"| {f.strategy} | {f.weights / 1e6:.0f} M | {f.clients} | {f.seconds:.3f} "
            f"| {f.copies:.1f} | {f.peak:.2f} |",
            flush=True,
        )
    for name in ("ist", "fedavg"):
        for by in ("weights", "clients"):
            line = series(found, name, by)
            if len(line) > 1:
                seconds, peak = exponent(line, "seconds", by), exponent(line, "peak", by)
                peak += by == "weights"  # it is in models
                print(f"{name}: seconds ~ {by}^{seconds:.2f}, bytes at the peak ~ {by}^{peak:.2f}")
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
