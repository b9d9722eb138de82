"""Merge trained slices back into the model. Pure numpy.

:mod:`flower_ist.submodels.cut` takes them.

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

from flower_ist.submodels.cut import Returned, restore_unchanged
from flower_ist.submodels.robust import Trim, middle

# A robust rule sorts this many float64 values at a time (32 MiB).
_BLOCK_VALUES = 1 << 22


def merge(
    tensors: dict[str, NDArray[Any]], returned: Sequence[Returned], trim: Trim | None = None
) -> float:
    """Put trained slices back into the whole model, in place.

    A weight becomes the mean, by the replies' weights, over the slices that hold it: one slice if
    they are disjoint, all of them for shared tensors. What nobody returned keeps its values, and a
    value that came back as it was sent keeps its bits: ``merge(take(W)) == W``. However many
    clients there are, the extra memory is about two slices if they are disjoint, and two float64
    copies of the largest tensor, and a slice's, if they overlap.

    Args:
        tensors: the whole model; writable arrays, changed in place.
        returned: the replies; their slices may be disjoint, identical, or overlap in any way.
        trim: a robust rule for weights that several replies hold, from
            :func:`flower_ist.submodels.robust.trim_for`, in place of the mean; the replies' weights
            do not count then. It takes memory for about four float64 copies of a group of slices.

    Returns:
        Coverage: the share of the model's weights that some client trained, 0 to 1.
    """
    if not returned:
        return 0.0
    axes = returned[0].cut.axes
    groups = _by_slice(returned)
    slices = [group[0].cut.indices for group in groups]
    # Slices that share no neuron of the widths along one axis share none of a tensor's entries.
    disjoint = {width for width in axes.widths if _are_disjoint([s[width] for s in slices])}
    trained = total = 0
    for name, whole in tensors.items():
        total += whole.size
        if not axes.is_cut(name):
            whole[...] = restore_unchanged(whole, _center(name, returned, whole.dtype, trim))
            trained += whole.size
        elif any(all(part.width in disjoint for part in axis) for axis in axes.parts[name]):
            trained += sum(_put_back(whole, name, group, trim) for group in groups)
        elif trim is None:
            trained += _average_holders(whole, name, returned)
        else:
            trained += _middle_of_holders(whole, name, returned, trim)
    return trained / total


def _by_slice(returned: Sequence[Returned]) -> list[list[Returned]]:
    """Group the replies that hold the same neurons on the same scale."""
    groups: dict[tuple[bool, tuple[bytes, ...]], list[Returned]] = {}
    for reply in returned:
        cut = reply.cut
        neurons = tuple(cut.indices[width].tobytes() for width in cut.axes.widths)
        groups.setdefault((cut.scaled, neurons), []).append(reply)
    return list(groups.values())


def _put_back(whole: NDArray[Any], name: str, group: Sequence[Returned], trim: Trim | None) -> int:
    """Write what becomes of a slice that nobody outside the group holds; return its size."""
    cut = group[0].cut
    new = _center(name, group, whole.dtype, trim)
    whole[cut.entries(name)] = restore_unchanged(cut.part(name, whole), new, cut.factor(name))
    return new.size


def _average_holders(whole: NDArray[Any], name: str, returned: Sequence[Returned]) -> int:
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


def _middle_of_holders(
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


def _are_disjoint(parts: Sequence[NDArray[np.intp]]) -> bool:
    neurons = np.concatenate([*parts, np.empty(0, np.intp)])
    return len(np.unique(neurons)) == len(neurons)


def _center(
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
