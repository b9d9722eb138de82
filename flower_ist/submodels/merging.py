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

from flower_ist.blocks import Blocks, blocks_of, rooms
from flower_ist.submodels.axes import Axes
from flower_ist.submodels.cut import Cut, Returned, Tensors, read_block, restore_unchanged
from flower_ist.submodels.holders import average_holders, center, middle_of_holders
from flower_ist.submodels.robust import Trim


class Merger:
    """Put a round's trained slices back into the whole model, in place, each as it comes.

    A slice's tensor is written at once where no other of the round's slices holds any of its
    entries, as in Independent Subnetwork Training with a client for each slice. The others wait for
    :meth:`finish`, as one value follows from all of them.

    Args:
        old: the whole model.
        new: writable arrays of the same shapes, for the merged model: whatever they hold is
            overwritten. They may be those of ``old``.
        cuts: of all replies that may come, each client's.
        trim: as :func:`merge` has it.
    """

    def __init__(
        self,
        old: Tensors,
        new: dict[str, NDArray[Any]],
        cuts: Sequence[Cut],
        trim: Trim | None = None,
    ) -> None:
        self._old, self._new = old, new
        self._trim = trim
        self._disjoint, self._holders = _overlaps(cuts)
        self._waiting: list[Returned] = []
        self._trained = 0
        # Where a round's slices divide a tensor, each entry is written once, and not copied before.
        self._resting = set(cuts)
        self._divided = set[str]()
        for name, tensor in old.items():
            if new[name] is tensor:
                continue
            if self._is_divided(name, tensor):
                self._divided.add(name)
            else:
                np.copyto(new[name], tensor)

    def add(self, reply: Returned) -> None:
        """Merge a reply as far as it depends on no other, and keep what is needed of it later."""
        waiting = []
        for name in self._new:
            if self._is_alone(reply.cut, name):
                self._trained += self._put_back(name, [reply])
            else:
                waiting.append(name)
        self._resting.discard(reply.cut)
        if waiting:
            self._waiting.append(_part_of(reply, waiting))

    def finish(self) -> float:
        """Merge what waited, and return the share of the model's weights that were trained."""
        waiting, self._waiting = self._waiting, []
        groups = list(_by_slice(waiting).values())
        for name, whole in self._new.items():
            if name in self._divided:
                self._keep(name, whole)
            shared = [reply for reply in waiting if not self._is_alone(reply.cut, name)]
            if not shared:
                continue
            axes = shared[0].cut.axes
            if not axes.is_cut(name):
                value = center(name, shared, whole.dtype, self._trim)
                whole[...] = restore_unchanged(whole, value)
                self._trained += whole.size
            elif self._is_disjoint(axes, name):
                for group in groups:
                    if not self._is_alone(group[0].cut, name):
                        self._trained += self._put_back(name, group)
            elif self._trim is None:
                self._trained += average_holders(whole, name, shared)
            else:
                self._trained += middle_of_holders(whole, name, shared, self._trim)
        return self._trained / max(1, sum(whole.size for whole in self._new.values()))

    def _keep(self, name: str, whole: NDArray[Any]) -> None:
        """Copy what no reply brought of a tensor that the slices divide."""
        for cut in self._resting:
            for where, _ in cut.places(name):
                whole[where] = self._old[name][where]

    def _put_back(self, name: str, group: Sequence[Returned]) -> int:
        """Write what becomes of a slice that nobody outside the group holds; return its size."""
        old, new, cut = self._old[name], self._new[name], group[0].cut
        is_change, blocks = _center_blocks(name, group, new.dtype, self._trim)
        shape, dtype = cut.shapes()[name], new.dtype
        steps = zip(cut.places(name), blocks, rooms(shape, dtype), rooms(shape, dtype), strict=True)
        for (where, factor), (_, block), (_, before), (_, moved) in steps:
            read_block(old, where, before)
            if is_change:
                np.divide(block, np.asarray(factor, dtype), out=moved)
                new[where] = np.add(before, moved, out=moved)
            else:
                new[where] = restore_unchanged(before, block, factor)
        return math.prod(shape)

    def _is_divided(self, name: str, tensor: NDArray[Any]) -> bool:
        """Return whether each entry of a tensor is in just one of the round's slices."""
        return (
            max(self._holders.values(), default=0) == 1
            and all(self._is_alone(cut, name) for cut in self._resting)
            and sum(math.prod(cut.shapes()[name]) for cut in self._resting) == tensor.size
        )

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
    value that came back as it was sent keeps its bits: ``merge(take(W)) == W``. (A change of 0
    makes 0.0 of -0.0.) However many clients there are, the extra memory is a block of a tensor if
    they are disjoint, and two float64 copies of the largest tensor, and a slice's, if they overlap.

    Args:
        tensors: the whole model; writable arrays, changed in place.
        returned: the replies; their slices may be disjoint, identical, or overlap in any way.
        trim: a robust rule for weights that several replies hold, from
            :func:`flower_ist.submodels.robust.trim_for`, in place of the mean; the replies' weights
            do not count then. It takes memory for about four float64 copies of a group of slices.

    Returns:
        Coverage: the share of the model's weights that some client trained, 0 to 1.
    """
    merger = Merger(tensors, tensors, [reply.cut for reply in returned], trim)
    for reply in returned:
        merger.add(reply)
    return merger.finish()


def room_for(
    tensors: Mapping[str, NDArray[Any]], retired: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return arrays like those of a model, to merge into, in the memory of one that nobody uses.

    Fresh memory costs several times what a copy does.

    Args:
        tensors: the model.
        retired: an older one with the same shapes; it is emptied.
    """
    room = {}
    into: NDArray[Any] | None = np.empty(0)
    alone = sys.getrefcount(into)  # 2, or 1 from Python 3.14 on
    for name, tensor in tensors.items():
        into = retired.pop(name, None)
        # A record that holds it would be one more reference than a fresh array has here.
        if into is None or not into.flags.writeable or sys.getrefcount(into) > alone:
            into = None  # frees it before its successor takes memory
            into = np.empty_like(tensor)
        room[name] = into
    return room


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


def _part_of(reply: Returned, names: Sequence[str]) -> Returned:
    """Return a reply that holds some of its tensors, on less memory if they are its smaller part.

    As it came over the network a reply may take a quarter of its tensors' memory, but all of it.
    """
    sizes = {name: math.prod(shape) for name, shape in reply.cut.shapes().items()}
    if 4 * sum(sizes[name] for name in names) > sum(sizes.values()):
        return reply
    tensors = {name: np.array(reply.tensors[name]) for name in names}
    return Returned(reply.cut, tensors, reply.weight)


def _center_blocks(
    name: str, replies: Sequence[Returned], dtype: np.dtype[Any], trim: Trim | None
) -> tuple[bool, Blocks]:
    """Return :func:`_center` in blocks, or the change of a single reply if it came as one."""
    if len(replies) == 1 and (change := replies[0].changes.get(name)):
        return True, change.make()
    return False, blocks_of(center(name, replies, dtype, trim))
