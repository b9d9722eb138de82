"""Merge trained slices back into the model. Pure numpy.

:mod:`flower_ist.submodels.slicing` takes them.

Slices may be disjoint (Independent Subnetwork Training), the same for several clients, or overlap
in any way (Federated Dropout, HeteroFL, FedRolex). A weight that several clients hold becomes the
mean over them, or their median or trimmed mean (:mod:`flower_ist.submodels.robust`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.submodels.axes import Axes
from flower_ist.submodels.robust import Cut, middle
from flower_ist.submodels.slicing import Returned, entries, factor_of, keep_bits

# A robust rule sorts this many float64 values at a time (32 MiB).
_BLOCK_VALUES = 1 << 22


def merge(
    tensors: dict[str, NDArray[Any]],
    axes: Axes,
    returned: Sequence[Returned],
    *,
    scaled: bool = True,
    cut: Cut | None = None,
) -> float:
    """Put trained slices back into the whole model, in place.

    A weight becomes the mean, by the replies' weights, over the slices that hold it: one slice if
    they are disjoint, all of them for shared tensors. What nobody returned keeps its values, and a
    value that came back as it was sent keeps its bits: ``merge(take(W)) == W``. However many
    clients there are, the extra memory is about two slices if they are disjoint, and two float64
    copies of the largest tensor, and a slice's, if they overlap.

    Args:
        tensors: the whole model; writable arrays, changed in place.
        axes: which axis belongs to which width.
        returned: the replies; their slices may be disjoint, identical, or overlap in any way.
        scaled: as it was in :func:`flower_ist.submodels.slicing.take`.
        cut: a robust rule for weights that several replies hold, from
            :func:`flower_ist.submodels.robust.cut_of`, in place of the mean; the replies' weights
            do not count then. It takes memory for about four float64 copies of a group of slices.

    Returns:
        Coverage: the share of the model's weights that some client trained, 0 to 1.
    """
    groups: dict[tuple[bytes, ...], list[Returned]] = {}
    for reply in returned:
        key = tuple(reply.indices[width].tobytes() for width in axes.widths)
        groups.setdefault(key, []).append(reply)
    slices = [group[0].indices for group in groups.values()]
    # Slices that share no neuron of one of a tensor's widths share none of its entries.
    disjoint = {width for width in axes.widths if _are_disjoint([s[width] for s in slices])}
    trained = total = 0
    for name, whole in tensors.items():
        total += whole.size
        if not disjoint.isdisjoint(axes.labels[name]):
            for group in groups.values():
                trained += _put_one(whole, axes, name, group, scaled, cut)
        elif not any(axes.labels[name]):
            if returned:
                whole[...] = keep_bits(whole, _center(name, returned, whole.dtype, cut), 1.0)
                trained += whole.size
        elif cut is None:
            trained += _average_holders(whole, axes, name, returned, scaled)
        else:
            trained += _middle_of_holders(whole, axes, name, returned, scaled, cut)
    return trained / total


def _put_one(
    whole: NDArray[Any],
    axes: Axes,
    name: str,
    group: Sequence[Returned],
    scaled: bool,
    cut: Cut | None,
) -> int:
    indices = group[0].indices
    new = _center(name, group, whole.dtype, cut)
    factor = factor_of(axes, name, indices, scaled)
    where = entries(axes, name, indices)
    whole[where] = keep_bits(whole[where], new, factor)
    return new.size


def _average_holders(
    whole: NDArray[Any], axes: Axes, name: str, returned: Sequence[Returned], scaled: bool
) -> int:
    """Move each entry by the weighted mean of its holders' changes; return how many are held."""
    change = np.zeros(whole.shape)
    held = np.zeros(whole.shape)
    for reply in returned:
        where = entries(axes, name, reply.indices)
        factor = factor_of(axes, name, reply.indices, scaled)
        old = whole[where]
        new = keep_bits(old, reply.tensors[name], factor)
        change[where] += np.subtract(new, old, dtype=np.float64) * reply.weight
        held[where] += reply.weight
    covered = held > 0
    np.divide(change, held, out=change, where=covered)
    moved = change != 0  # adding 0 would turn -0.0 into 0.0
    mean = whole[moved] + change[moved]
    whole[moved] = mean if whole.dtype.kind == "f" else np.rint(mean)
    return int(covered.sum())


def _middle_of_holders(
    whole: NDArray[Any],
    axes: Axes,
    name: str,
    returned: Sequence[Returned],
    scaled: bool,
    cut: Cut,
) -> int:
    """Set each entry to the middle of its holders' values; return how many are held.

    The values are stacked for a few rows of the tensor at a time.
    """
    held = 0
    step = max(1, _BLOCK_VALUES // (len(returned) * math.prod(whole.shape[1:])))
    for start in range(0, len(whole), step):
        block = whole[start : start + step]
        stack = np.full((len(returned), *block.shape), np.nan)
        for values, reply in zip(stack, returned, strict=True):
            rows, *others = entries(axes, name, reply.indices)
            inside = ((rows >= start) & (rows < start + step)).reshape(-1)
            where = (rows[inside] - start, *others)
            factor = factor_of(axes, name, reply.indices, scaled)
            values[where] = keep_bits(block[where], reply.tensors[name][inside], factor)
        new, holders = middle(stack, cut)
        covered = holders > 0
        block[covered] = keep_bits(block[covered], _as_dtype(new[covered], whole.dtype), 1.0)
        held += int(covered.sum())
    return held


def _are_disjoint(parts: Sequence[NDArray[np.intp]]) -> bool:
    neurons = np.concatenate([*parts, np.empty(0, np.intp)])
    return len(np.unique(neurons)) == len(neurons)


def _center(
    name: str, replies: Sequence[Returned], dtype: np.dtype[Any], cut: Cut | None
) -> NDArray[Any]:
    """Return what becomes of a tensor that all these replies hold whole."""
    if cut is None or len(replies) == 1:
        return _weighted_mean(name, replies, dtype)
    stack = np.stack([reply.tensors[name] for reply in replies])
    return _as_dtype(middle(stack, cut)[0], dtype)


def _weighted_mean(name: str, replies: Sequence[Returned], dtype: np.dtype[Any]) -> NDArray[Any]:
    first = replies[0].tensors[name]
    if len(replies) == 1:
        return first
    # As offsets from the first reply, equal replies give their value exactly.
    total = sum(reply.weight for reply in replies)
    mean = first.astype(np.float64)
    for reply in replies[1:]:
        mean += np.subtract(reply.tensors[name], first, dtype=np.float64) * (reply.weight / total)
    return _as_dtype(mean, dtype)


def _as_dtype(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.asarray(values if dtype.kind == "f" else np.rint(values)).astype(dtype)
