"""Merge trained slices back into the model. Pure numpy.

:mod:`flower_ist.submodels.cut` takes them.

Slices may be disjoint (Independent Subnetwork Training), the same for several clients, or overlap
in any way (Federated Dropout, HeteroFL, FedRolex). A weight that several clients hold becomes the
mean over them, or their median or trimmed mean (:mod:`flower_ist.submodels.robust`).
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.submodels.axes import Axes
from flower_ist.submodels.cut import Cut, Returned, cached_rows, restore_unchanged
from flower_ist.submodels.robust import Trim, middle

# A robust rule sorts this many float64 values at a time (32 MiB).
_BLOCK_VALUES = 1 << 22


class Merger:
    """Put a round's trained slices back into the whole model, in place, each as it comes.

    A slice's tensor is written at once where no other of the round's slices holds any of its
    entries, as in Independent Subnetwork Training with a client for each slice. The others wait for
    :meth:`finish`, as one value follows from all of them.

    Args:
        tensors: the whole model; writable arrays, changed in place.
        cuts: of all replies that may come, each client's.
        trim: as :func:`merge` has it.
    """

    def __init__(
        self, tensors: dict[str, NDArray[Any]], cuts: Sequence[Cut], trim: Trim | None = None
    ) -> None:
        self._tensors = tensors
        self._trim = trim
        self._disjoint, self._holders = _overlaps(cuts)
        self._waiting: list[Returned] = []
        self._trained = 0

    def add(self, reply: Returned) -> bool:
        """Merge a reply as far as it depends on no other; return whether it is still needed."""
        waits = False
        for name, whole in self._tensors.items():
            if self._is_alone(reply.cut, name):
                self._trained += _put_back(whole, name, [reply], None)
            else:
                waits = True
        if waits:
            self._waiting.append(reply)
        return waits

    def finish(self) -> float:
        """Merge what waited, and return the share of the model's weights that were trained."""
        waiting, self._waiting = self._waiting, []
        groups = list(_by_slice(waiting).values())
        for name, whole in self._tensors.items():
            shared = [reply for reply in waiting if not self._is_alone(reply.cut, name)]
            if not shared:
                continue
            axes = shared[0].cut.axes
            if not axes.is_cut(name):
                new = _center(name, shared, whole.dtype, self._trim)
                whole[...] = restore_unchanged(whole, new)
                self._trained += whole.size
            elif self._is_disjoint(axes, name):
                for group in groups:
                    if not self._is_alone(group[0].cut, name):
                        self._trained += _put_back(whole, name, group, self._trim)
            elif self._trim is None:
                self._trained += _average_holders(whole, name, shared)
            else:
                self._trained += _middle_of_holders(whole, name, shared, self._trim)
        return self._trained / max(1, sum(whole.size for whole in self._tensors.values()))

    def _is_alone(self, cut: Cut, name: str) -> bool:
        """Return whether no other reply holds any entry of this slice's tensor."""
        if sum(self._holders.values()) == 1:
            return True
        return self._is_disjoint(cut.axes, name) and self._holders[_key(cut)] == 1

    def _is_disjoint(self, axes: Axes, name: str) -> bool:
        # Slices that share no neuron of the widths along one axis share none of a tensor's entries.
        return any(all(part.width in self._disjoint for part in axis) for axis in axes.parts[name])


def merge(
    tensors: dict[str, NDArray[Any]], returned: Sequence[Returned], trim: Trim | None = None
) -> float:
    """Put trained slices back into the whole model, in place.

    A weight becomes the mean, by the replies' weights, over the slices that hold it: one slice if
    they are disjoint, all of them for shared tensors. What nobody returned keeps its values, and a
    value that came back as it was sent keeps its bits: ``merge(take(W)) == W``. However many
    clients there are, the extra memory is a block of a tensor if they are disjoint, and two float64
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
    merger = Merger(tensors, [reply.cut for reply in returned], trim)
    for reply in returned:
        merger.add(reply)
    return merger.finish()


def copied(
    tensors: Mapping[str, NDArray[Any]], retired: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return a copy of a model, to merge into, in the memory of one that nobody uses any more.

    Fresh memory costs several times what the copy does.

    Args:
        tensors: the model.
        retired: an older one with the same shapes; it is emptied.
    """
    copy = {}
    for name, tensor in tensors.items():
        into = retired.pop(name, None)
        # The variable and the argument of the call itself: a record would be a third.
        if into is None or not into.flags.writeable or sys.getrefcount(into) > 2:
            into = None  # frees it before its successor takes memory
            into = np.empty_like(tensor)
        np.copyto(into, tensor)
        copy[name] = into
    return copy


def _key(cut: Cut) -> tuple[bool, tuple[bytes, ...]]:
    """Return what tells a slice from others: its neurons and its scale."""
    return cut.scaled, tuple(cut.indices[width].tobytes() for width in cut.axes.widths)


def _by_slice(returned: Sequence[Returned]) -> dict[Any, list[Returned]]:
    """Group the replies that hold the same neurons on the same scale."""
    groups: dict[Any, list[Returned]] = {}
    for reply in returned:
        groups.setdefault(_key(reply.cut), []).append(reply)
    return groups


def _overlaps(cuts: Sequence[Cut]) -> tuple[set[str], Counter[Any]]:
    """Return the widths of which different slices share no neuron, and each slice's holders."""
    holders = Counter(map(_key, cuts))
    slices = {_key(cut): cut for cut in cuts}.values()
    disjoint = set()
    for width, neurons in cuts[0].axes.widths.items() if cuts else ():
        taken = np.zeros(neurons, bool)
        for cut in slices:
            if taken[cut.indices[width]].any():
                break
            taken[cut.indices[width]] = True
        else:
            disjoint.add(width)
    return disjoint, holders


def _put_back(whole: NDArray[Any], name: str, group: Sequence[Returned], trim: Trim | None) -> int:
    """Write what becomes of a slice that nobody outside the group holds; return its size.

    A few rows at a time are read, restored and written while they are in the processor's cache.
    """
    cut = group[0].cut
    new, factor = _center(name, group, whole.dtype, trim), cut.factor(name)
    if not new.ndim:
        whole[...] = restore_unchanged(whole, new, factor)
        return 1
    varies = isinstance(factor, np.ndarray) and factor.shape[:1] == new.shape[:1]
    by_row = np.broadcast_to(factor, new.shape) if varies else None
    for run, where in cut.blocks(name, cached_rows(new.shape)):
        of_run = factor if by_row is None else by_row[run]
        whole[where] = restore_unchanged(whole[where], new[run], of_run)
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
