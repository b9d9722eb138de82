"""What becomes of a weight that several replies hold. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.submodels.cut import Returned, restore_unchanged
from flower_ist.submodels.robust import Trim, middle

# A robust rule sorts this many float64 values at a time (32 MiB).
_BLOCK_VALUES = 1 << 22


def average_holders(whole: NDArray[Any], name: str, returned: Sequence[Returned]) -> int:
    """Move each entry by the weighted mean of its holders' changes; return how many are held."""
    change = np.zeros(whole.shape)
    held = np.zeros(whole.shape)
    for reply in returned:
        where = reply.cut.entries(name)
        change[where] += reply.change(name, whole) * reply.weight
        held[where] += reply.weight
    covered = held > 0
    np.divide(change, held, out=change, where=covered)
    moved = change != 0  # adding 0 would turn -0.0 into 0.0
    mean = whole[moved] + change[moved]
    whole[moved] = mean if whole.dtype.kind == "f" else np.rint(mean)
    return int(covered.sum())


def middle_of_holders(
    whole: NDArray[Any], name: str, returned: Sequence[Returned], trim: Trim
) -> int:
    """Set each entry to the middle of its holders' values; return how many are held.

    The values are stacked for a few rows of the tensor at a time.
    """
    places = [(reply.cut.entries(name), reply.cut.factor(name)) for reply in returned]
    held = 0
    step = max(1, _BLOCK_VALUES // (len(returned) * math.prod(whole.shape[1:])))
    for start in range(0, len(whole), step):
        block = whole[start : start + step]
        stack = np.full((len(returned), *block.shape), np.nan)
        for values, reply, ((rows, *others), factor) in zip(stack, returned, places, strict=True):
            inside = ((rows >= start) & (rows < start + step)).reshape(-1)
            where = (rows[inside] - start, *others)
            new = reply.tensors[name]
            if not isinstance(factor, float):
                factor = np.broadcast_to(factor, new.shape)[inside]
            values[where] = restore_unchanged(block[where], new[inside], factor)
        new, holders = middle(stack, trim)
        covered = holders > 0
        block[covered] = restore_unchanged(block[covered], _as_dtype(new[covered], whole.dtype))
        held += int(covered.sum())
    return held


def center(
    name: str, replies: Sequence[Returned], dtype: np.dtype[Any], trim: Trim | None
) -> NDArray[Any]:
    """Return what becomes of a tensor that all these replies hold whole."""
    if trim is None or len(replies) == 1:
        return _weighted_mean(name, replies, dtype)
    stack = np.stack([reply.tensors[name] for reply in replies])
    return _as_dtype(middle(stack, trim)[0], dtype)


def _weighted_mean(name: str, replies: Sequence[Returned], dtype: np.dtype[Any]) -> NDArray[Any]:
    first = replies[0].tensors[name]
    if len(replies) == 1:
        return first
    # As offsets from the first reply, equal replies give their value exactly.
    total = sum(reply.weight for reply in replies)
    mean = first.astype(np.float64)
    for reply in replies[1:]:
        offset = np.subtract(reply.tensors[name], first, dtype=np.float64)
        offset *= reply.weight / total
        mean += offset
    return _as_dtype(mean, dtype)


def _as_dtype(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.asarray(values if dtype.kind == "f" else np.rint(values)).astype(dtype)
