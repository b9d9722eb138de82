"""Take a slice out of a model, and merge trained slices back. Pure numpy.

A slice is a small dense net of the same depth: rows and columns of the chosen neurons, biases with
their neurons, shared tensors whole.

Scale. In the whole net a neuron sums over all H neurons of the layer before; in a slice only over
n of them. A slice's incoming weights are therefore multiplied by H / n, per summed axis. Over a
random partition the slice's pre-activation then has the whole net's as its expectation, and the
whole net is the average of what its slices compute (docs/method.md derives it). The factor is
folded into the weights, so that a client trains an ordinary net and needs to know nothing of it;
:func:`merge` takes it out again. With ``scaled=False`` weights are sent as they are.

Overlap. Slices may share neurons (Federated Dropout, HeteroFL, FedRolex): a weight then becomes the
mean over the slices that hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.axes import Axes
from flower_ist.partition import Indices

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Returned:
    """One client's trained slice.

    Attributes:
        indices: the neurons of each width that the slice was taken from.
        tensors: the small net's tensors, shaped as :func:`take` gave them.
        weight: the reply's weight in means, e.g. the client's number of examples; more than 0.
    """

    indices: Indices
    tensors: Tensors
    weight: float


def take(
    tensors: Tensors, axes: Axes, indices: Indices, *, scaled: bool = True
) -> dict[str, NDArray[Any]]:
    """Cut the small dense net of some neurons out of the whole model.

    Args:
        tensors: the whole model, with the shapes of ``axes``.
        axes: which axis belongs to which width.
        indices: width -> neuron indices (n,).
        scaled: multiply summed weights by H / n.

    Returns:
        New contiguous arrays, one per tensor, on the slice's scale.

    Raises:
        TypeError: a tensor of whole numbers would have to be scaled.
    """
    return {name: _take_one(tensors[name], axes, name, indices, scaled) for name in axes.shapes}


def merge(
    tensors: dict[str, NDArray[Any]],
    axes: Axes,
    returned: Sequence[Returned],
    *,
    scaled: bool = True,
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
        scaled: as it was in :func:`take`.

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
                trained += _put_one(whole, axes, name, group, scaled)
        elif any(axes.labels[name]):
            trained += _average_holders(whole, axes, name, returned, scaled)
        elif returned:
            whole[...] = _keep_bits(whole, _weighted_mean(name, returned, whole.dtype), 1.0)
            trained += whole.size
    return trained / total


def scale(axes: Axes, name: str, indices: Indices) -> float:
    """Return what a slice's tensor is multiplied by: the product of H / n over its summed axes."""
    factor = 1.0
    for axis in axes.summed[name]:
        label = axes.labels[name][axis]
        if label is not None:
            factor *= axes.widths[label] / len(indices[label])
    return factor


def _take_one(
    whole: NDArray[Any], axes: Axes, name: str, indices: Indices, scaled: bool
) -> NDArray[Any]:
    part = whole
    for axis, rows in _positions(axes, name, indices):
        part = np.take(part, rows, axis=axis)
    factor = scale(axes, name, indices) if scaled else 1.0
    if part is whole:
        return whole.copy()
    if factor == 1.0:
        return part
    if part.dtype.kind != "f":
        raise TypeError(f"{name!r} is {part.dtype}: only floating-point tensors can be scaled.")
    product: NDArray[Any] = part * part.dtype.type(factor)
    return product


def _put_one(
    whole: NDArray[Any], axes: Axes, name: str, group: Sequence[Returned], scaled: bool
) -> int:
    indices = group[0].indices
    new = _weighted_mean(name, group, whole.dtype)
    factor = scale(axes, name, indices) if scaled else 1.0
    where = _entries(axes, name, indices)
    whole[where] = _keep_bits(whole[where], new, factor)
    return new.size


def _average_holders(
    whole: NDArray[Any], axes: Axes, name: str, returned: Sequence[Returned], scaled: bool
) -> int:
    """Move each entry by the weighted mean of its holders' changes; return how many are held."""
    change = np.zeros(whole.shape)
    held = np.zeros(whole.shape)
    for reply in returned:
        where = _entries(axes, name, reply.indices)
        factor = scale(axes, name, reply.indices) if scaled else 1.0
        old = whole[where]
        new = _keep_bits(old, reply.tensors[name], factor)
        change[where] += np.subtract(new, old, dtype=np.float64) * reply.weight
        held[where] += reply.weight
    covered = held > 0
    np.divide(change, held, out=change, where=covered)
    moved = change != 0  # adding 0 would turn -0.0 into 0.0
    mean = whole[moved] + change[moved]
    whole[moved] = mean if whole.dtype.kind == "f" else np.rint(mean)
    return int(covered.sum())


def _are_disjoint(parts: Sequence[NDArray[np.intp]]) -> bool:
    neurons = np.concatenate([*parts, np.empty(0, np.intp)])
    return len(np.unique(neurons)) == len(neurons)


def _keep_bits(old: NDArray[Any], new: NDArray[Any], factor: float) -> NDArray[Any]:
    """Return ``new / factor``, but exactly ``old`` where the client sent back what it was sent.

    Multiplying and dividing would round, and -0.0 would become 0.0.
    """
    if factor == 1.0:
        return np.where(new == old, old, new)
    factor_of_dtype = old.dtype.type(factor)
    return np.where(new == old * factor_of_dtype, old, new / factor_of_dtype)


def _weighted_mean(name: str, replies: Sequence[Returned], dtype: np.dtype[Any]) -> NDArray[Any]:
    first = replies[0].tensors[name]
    if len(replies) == 1:
        return first
    # As offsets from the first reply, equal replies give their value exactly.
    total = sum(reply.weight for reply in replies)
    mean = first.astype(np.float64)
    for reply in replies[1:]:
        mean += np.subtract(reply.tensors[name], first, dtype=np.float64) * (reply.weight / total)
    return np.asarray(mean if dtype.kind == "f" else np.rint(mean)).astype(dtype)


def _entries(axes: Axes, name: str, indices: Indices) -> tuple[NDArray[np.intp], ...]:
    """Return the index of a slice's entries in the whole tensor."""
    positions = dict(_positions(axes, name, indices))
    lengths = enumerate(axes.shapes[name])
    return np.ix_(*(positions.get(axis, np.arange(length)) for axis, length in lengths))


def _positions(axes: Axes, name: str, indices: Indices) -> list[tuple[int, NDArray[np.intp]]]:
    """Return, for each cut axis of a tensor, the entries that the chosen neurons own."""
    found = []
    for axis, label in enumerate(axes.labels[name]):
        if label is not None:
            rows, block = indices[label], axes.block(name, axis)
            if block > 1:
                rows = (rows[:, None] * block + np.arange(block)).reshape(-1)
            found.append((axis, rows))
    return found
