"""What the numpy operations of a round would take if each found its numbers in the cache.

    python benchmarks/round_floor.py

A round cuts a slice and rounds it to int8, decodes the change that comes back, and adds it to the
model. Each of these operations is timed on a block that stays in the cache, in ns a weight, beside
memcpy of a model that does not fit there. Their sum in copies is what no order of these operations
can go below; in a round the model is also read from main memory twice and written once.

At the end, what it takes to pack and to unpack a net of 4 M random weights in each codec.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from flower_ist.wire.compact import Known
from flower_ist.wire.packing import pack, unpackers

ROWS, DIM = 64, 1024
CALLS = 400
TURNS = 5
MODEL = 100_000_000
CODECS = ("float32", "int8", "int4", "compact")


def seconds(call: Callable[[], object], calls: int) -> float:
    """Return the least CPU seconds of one call."""
    taken = []
    for _ in range(TURNS):
        start = time.process_time()
        for _ in range(calls):
            call()
        taken.append((time.process_time() - start) / calls)
    return min(taken)


def operations() -> dict[str, Callable[[], object]]:
    """Return the operations, each on one block of 64 rows."""
    x = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    y, out, scale = x.copy(), np.empty_like(x), np.full((ROWS, 1), 0.5, np.float32)
    whole, rows = np.ones((2 * ROWS, DIM), np.float32), np.arange(0, 2 * ROWS, 2)
    small, factor = np.ones(x.shape, np.int8), np.float32(3)

    def write_back() -> None:
        whole[rows] = x

    return {
        "cut: take rows": lambda: np.take(whole, rows, axis=0, out=out, mode="clip"),
        "cut: scale": lambda: np.multiply(x, factor, out=out),
        "round: magnitudes": lambda: np.abs(x, out=out),
        "round: largest of a row": lambda: x.max(axis=-1, initial=0.0),
        "round: divide": lambda: np.divide(x, scale, out=out),
        "round: to whole numbers": lambda: np.rint(x, out=out),
        "round: to int8": lambda: np.copyto(small, y, casting="unsafe"),
        "decode: int8 times scale": lambda: np.multiply(small, scale, out=out),
        "merge: take rows": lambda: np.take(whole, rows, axis=0, out=out, mode="clip"),
        "merge: divide": lambda: np.divide(x, factor, out=out),
        "merge: add": lambda: np.add(x, y, out=out),
        "merge: write rows": write_back,
    }


def codec_seconds(codec: str) -> tuple[float, float]:
    """Return the CPU seconds a weight of packing and of unpacking a net, in blocks."""
    tensors = {"fc1.weight": np.random.default_rng(0).normal(0, 0.03, (4096, 1024))}
    singles = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    layout = {name: (tensor.dtype, tensor.shape) for name, tensor in singles.items()}
    known = Known({}, None)
    packed = pack(singles, layout, codec, known=known)

    def unpack() -> None:
        for tensor in unpackers(packed, layout, codec, known).values():
            for _ in tensor.make():
                pass

    count = sum(tensor.size for tensor in singles.values())
    down = seconds(lambda: pack(singles, layout, codec, known=known), 1)
    return down / count, seconds(unpack, 1) / count


def main() -> None:
    """Print two tables."""
    source = np.full(MODEL, 0.5, np.float32)
    into = np.full(MODEL, 1.5, np.float32)
    copy = 1e9 * seconds(lambda: np.copyto(into, source), 1) / MODEL
    print("| operation | ns a weight |")
    print("|---|---|")
    total = 0.0
    for name, call in operations().items():
        taken = 1e9 * seconds(call, CALLS) / (ROWS * DIM)
        total += taken
        print(f"| {name} | {taken:.2f} |")
    print(f"| all of them | {total:.2f} |")
    print(f"| memcpy of {MODEL / 1e6:.0f} M weights | {copy:.2f} |")
    print(f"All of them: {total / copy:.1f} copies")
    print("| codec | packing, ns a weight | unpacking |")
    print("|---|---|---|")
    for codec in CODECS:
        down, up = codec_seconds(codec)
        print(f"| {codec} | {1e9 * down:.1f} | {1e9 * up:.1f} |")


if __name__ == "__main__":
    main()
