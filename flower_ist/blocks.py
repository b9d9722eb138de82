"""Tensors as blocks: runs of rows that stay in the processor's cache from one step to the next.

A large tensor that is cut, rounded and packed, or unpacked and merged, passes through these steps
one block at a time. None of them makes a tensor of its own, and main memory is read and written
once instead of at each step.

A block may be overwritten by the next one and must not be changed by who reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# About so many values at a time (512 KiB of float32).
_VALUES = 1 << 17

# More than the rounding of a sum.
_SURELY = 1.001

# Rows of a tensor; an ellipsis for one that has no axis.
Run: TypeAlias = slice | EllipsisType
Blocks: TypeAlias = Iterator[tuple[Run, NDArray[Any]]]


def runs(shape: tuple[int, ...]) -> Iterator[Run]:
    """Yield the runs of rows in which a tensor of this shape is handled, the same at each step.

    All but the last have a multiple of 4 rows: so many numbers of half a byte or of two bytes fill
    whole words.
    """
    if not shape:
        yield ...
        return
    step = 4 * max(1, _VALUES // (4 * max(1, math.prod(shape[1:]))))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def rooms(shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> Blocks:
    """Yield the runs of a tensor, each with memory for its block: the same memory at each."""
    memory: NDArray[Any] | None = None
    for run in runs(shape):
        if isinstance(run, EllipsisType):
            yield run, np.empty(shape, dtype)
            continue
        rows = run.stop - run.start
        if memory is None:  # no later run is longer
            memory = np.empty((rows, *shape[1:]), dtype)
        yield run, memory[:rows]


def blocks_of(tensor: NDArray[Any]) -> Blocks:
    """Yield the blocks of a tensor that is there, as views."""
    for run in runs(tensor.shape):
        yield run, tensor[run]


def joined(blocks: Blocks, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the tensor (shape) that blocks are of."""
    tensor = np.empty(shape, dtype)
    for run, block in blocks:
        tensor[run] = block
    return tensor


def largest(tensor: NDArray[Any]) -> float:
    """Return the largest magnitude in a tensor, NaN if it holds one, 0 if it is empty or boolean.

    Unlike ``abs(tensor).max()`` it makes no copy of the tensor.
    """
    if not tensor.size or tensor.dtype.kind == "b":
        return 0.0
    # If there is a NaN, one of the two is NaN; the other way around would hide it from max().
    low, high = float(tensor.min()), float(tensor.max())
    return math.nan if math.isnan(low) else max(-low, high)


@dataclass(frozen=True, eq=False)
class Blocked:
    """A tensor that is made in blocks whenever it is read, and takes no memory in between.

    Attributes:
        make: makes its blocks, the same ones at each call.
        at_most: a magnitude that no number in it exceeds; infinite if none is known, and NaN if a
            number may be NaN.
    """

    make: Callable[[], Blocks]
    at_most: float = math.inf

    def plus(self, other: Blocked) -> Blocked:
        """Return the sum with a tensor of the same dtype and shape."""
        return Blocked(partial(_sums, self, other), _SURELY * (self.at_most + other.at_most))

    def measured(self) -> Blocked:
        """Return the same tensor with its largest magnitude, for which it is read."""
        sizes = np.array([largest(block) for _, block in self.make()])
        return Blocked(self.make, largest(sizes))


def _sums(one: Blocked, other: Blocked) -> Blocks:
    for (run, block), (_, addend) in zip(one.make(), other.make(), strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            total = block + addend
        yield run, total
