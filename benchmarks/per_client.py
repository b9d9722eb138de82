"""What a registered client costs the server besides its rounds: memory, bytes, and CPU time.

    python benchmarks/per_client.py [--clients 10000]

These are the constants by which docs/scaling.md extrapolates: a ``Client`` with its facts as Python
keeps it, its node in Flower's list of all nodes, its name in a checkpoint, and a round's selection.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

from many_registered import echo_app

from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.strategies.quarantine import Quarantine
from flower_ist.strategies.selection import ClientSelection
from flower_ist.wire._flwr import NodeInfo

ROUNDS = 5
KEY = bytes(120)  # of the length of a node's public key in DER form


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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000)
    count = parser.parse_args().clients
    grid = InProcessGrid(echo_app(), count)
    registry = ClientRegistry()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    registry.meet(grid, grid.get_node_ids())
    memory = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    selection = ClientSelection(registry, Quarantine(3), 0, patience=1.0)

    def select(server_round: int) -> object:
        return selection.select(
            server_round,
            grid,
            fraction=100 / count,
            min_train_nodes=50,
            min_available_nodes=count,
        )

    select(1)
    selecting = min(seconds(partial(select, r)) for r in range(2, 2 + ROUNDS))
    state = {"names": registry.names.state(), **selection.state()}
    writing = min(seconds(lambda: json.dumps(state)) for _ in range(ROUNDS))
    print("| of each registered client | |")
    print("|---|---|")
    print(f"| memory: name and facts | {memory / count / 1e3:.2f} kB |")
    print(f"| its node in Flower's list | {len(node(2**62).SerializeToString())} bytes |")
    print(f"| name and turns in a checkpoint | {len(json.dumps(state)) / count:.0f} bytes |")
    print(f"| writing them | {1e6 * writing / count:.2f} us |")
    print(f"| a round's selection | {1e6 * selecting / count:.2f} us |")


if __name__ == "__main__":
    main()
