"""What Flower's form of one message of 50 MB takes: objects, bytes, and CPU time by byte.

python benchmarks/message_form.py
FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE=1048576 python benchmarks/message_form.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.wire._flwr import get_all_nested_objects, no_object_id_recompute
from flower_ist.wire.size import round_trip, wire_bytes

PAYLOAD = 50_000_000
TURNS = 5


def seconds(call: Callable[[], object]) -> float:
    """Return the least CPU seconds of a few calls."""
    taken = []
    for _ in range(TURNS):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


def main() -> None:
    """Print one line."""
    data = np.random.default_rng(0).bytes(PAYLOAD)
    record = ArrayRecord({"packed": Array("int8", (PAYLOAD,), "flat", data)})
    InProcessGrid(ClientApp(), 0)  # a message needs a run
    message = Message(RecordDict({"arrays": record}), dst_node_id=5, message_type="train")
    with no_object_id_recompute():
        objects = len(get_all_nested_objects(message))
    counting = 1e9 * seconds(lambda: wire_bytes(message)) / PAYLOAD
    crossing = 1e9 * seconds(lambda: round_trip(message)) / PAYLOAD
    print(
        f"{objects} objects, {wire_bytes(message) - PAYLOAD} bytes more than the payload; a byte "
        f"takes {counting:.1f} ns to count, {crossing:.1f} ns to serialize and read back"
    )


if __name__ == "__main__":
    main()
