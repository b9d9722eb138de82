"""What a registered client costs the server besides its rounds: memory, bytes, and CPU time.

    python benchmarks/per_client.py [--clients 10000]

These are the constants by which docs/scaling.md extrapolates: a ``Client`` with its facts as Python
keeps it, its node in Flower's list of all nodes, what is kept of it when a run begins, and a look
at who is connected. Below them is what a round with 100 of them selects and keeps, in all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from many_registered import SAMPLED, echo_app

from flower_ist.grids import clients
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.checkpoint import Checkpoint, Checkpoints
from flower_ist.strategies.quarantine import Quarantine
from flower_ist.strategies.sampling import TurnSampler
from flower_ist.strategies.selection import ClientSelection
from flower_ist.wire._flwr import NodeInfo

ROUNDS = 21
KEY = bytes(120)  # of the length of a node's public key in DER form


class Costs(NamedTuple):
    """Bytes and CPU seconds of ``clients`` registered ones, and of a round with 100 of them."""

    clients: int
    memory: float
    first_bytes: float
    first_seconds: float
    look: float
    lots: float
    anew: float
    select: float
    round_bytes: float
    round_seconds: float


def seconds(call: Callable[[], object]) -> float:
    """Return a call's CPU seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def node(node_id: int) -> NodeInfo:
    """Return what Flower tells of a node with a registered key."""
    when = "2026-01-01T00:00:00.000000+00:00"
    return NodeInfo(
        node_id=node_id,
        owner_aid="owner",
        status="online",
        registered_at=when,
        last_activated_at=when,
        online_until=1.8e9,
        heartbeat_interval=30.0,
        public_key=KEY,
        name=f"client-{node_id:06d}",
    )


def costs(count: int, folder: Path) -> Costs:
    """Measure with so many clients; a round's are the medians."""
    grid = InProcessGrid(echo_app(), count)
    registry = ClientRegistry()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    registry.meet(grid, grid.get_node_ids())
    memory = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    nodes = list(grid.get_node_ids())
    look = min(seconds(lambda: registry._name(grid, nodes)) for _ in range(ROUNDS))
    clients._NAMES_FRESH = float("inf")  # rounds without such a look
    selection = ClientSelection(registry, Quarantine(3), 0, patience=1.0)
    checkpoints = Checkpoints(folder)
    changes = folder / "checkpoints" / "changes-000001.jsonl"
    select, save, size = [], [], [0]
    for server_round in range(1, 2 + ROUNDS):
        numbers = {"min_train_nodes": SAMPLED, "min_available_nodes": count}
        choose = partial(selection.select, server_round, grid, fraction=0.0, **numbers)
        select.append(seconds(choose))
        facts = {"names": registry.names.state()}
        checkpoint = Checkpoint(server_round, {}, selection.state(), 0, facts)
        save.append(seconds(partial(checkpoints.save, checkpoint)))
        kept = max(checkpoints.files()).stat().st_size
        size.append(changes.stat().st_size + kept)
    names = [client.name for client in registry.meet(grid, nodes)]
    lots = seconds(partial(TurnSampler(0).sample, 1, names, SAMPLED))
    registry._met.clear()
    anew = seconds(partial(selection.select, server_round + 1, grid, fraction=0.0, **numbers))
    rounds = median(select[1:]), float(median(np.diff(size)[1:]) + kept), median(save[1:])
    return Costs(count, memory, size[1], save[0], look, lots, anew, *rounds)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000)
    count = parser.parse_args().clients
    with tempfile.TemporaryDirectory() as name:
        few = costs(count // 10, Path(name, "few"))
        many = costs(count, Path(name, "many"))
    print("| of each registered client | |")
    print("|---|---|")
    print(f"| memory: name and facts | {many.memory / count / 1e3:.2f} kB |")
    print(f"| its node in Flower's list | {len(node(2**62).SerializeToString())} bytes |")
    print(f"| a look at who is connected, every 10 s | {1e6 * many.look / count:.2f} us |")
    print(f"| drawing its lot, once an epoch | {1e6 * many.lots / count:.2f} us |")
    print(f"| selecting where others came or went | {1e6 * many.anew / count:.2f} us |")
    print(f"| kept of it by a run's first checkpoint | {many.first_bytes / count:.0f} bytes |")
    print(f"| writing that | {1e6 * many.first_seconds / count:.2f} us |")
    print(f"| a round with {SAMPLED} of | {few.clients:,} | {many.clients:,} |")
    print("|---|---|---|")
    print(f"| selects in | {1e3 * few.select:.2f} ms | {1e3 * many.select:.2f} ms |")
    print(f"| keeps | {few.round_bytes:,.0f} bytes | {many.round_bytes:,.0f} bytes |")
    print(f"| in | {1e3 * few.round_seconds:.2f} ms | {1e3 * many.round_seconds:.2f} ms |")


if __name__ == "__main__":
    main()
