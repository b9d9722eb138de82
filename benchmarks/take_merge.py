"""Cutting and merging a model of 100 million weights for 32 clients, against copying it once."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np

from flower_ist.classifier.mlp import mlp_shapes
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut, Returned
from flower_ist.submodels.merging import merge
from flower_ist.submodels.partition import partition

DIMS = [2048, 8192, 8192, 2048]
CLIENTS = 32


def main() -> None:
    """Print one table: seconds as multiples of a copy, and the peak of extra memory."""
    axes = mlp_axes(mlp_shapes(DIMS))
    random = np.random.default_rng(0)
    weights = {n: random.random(s, np.float32) for n, s in axes.shapes.items()}
    model_bytes = sum(w.nbytes for w in weights.values())
    start = time.perf_counter()
    copy = {name: w.copy() for name, w in weights.items()}
    copying = time.perf_counter() - start
    del copy

    start = time.perf_counter()
    cuts = [Cut(axes, part) for part in partition(0, 1, axes.widths, CLIENTS)]
    taken = [cut.take(weights) for cut in cuts]
    taking = time.perf_counter() - start
    replies = [Returned(cut, small, 1.0) for cut, small in zip(cuts, taken, strict=True)]
    tracemalloc.start()
    start = time.perf_counter()
    merge(weights, replies)
    merging = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    slice_bytes = sum(t.nbytes for t in taken[0].values())

    print(f"model of {model_bytes / 4e6:.0f} M weights, {CLIENTS} clients")
    print("| step | multiples of one copy of the model |")
    print("|---|---|")
    print(f"| partition and take, all clients | {taking / copying:.2f} |")
    print(f"| merge, all clients | {merging / copying:.2f} |")
    print(f"extra memory of merge: {peak / slice_bytes:.2f} slices of {slice_bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
