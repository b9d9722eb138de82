"""Take a slice out of a model. Pure numpy; :mod:`flower_ist.submodels.merging` puts it back.

A slice is a small dense net of the same depth: rows and columns of the chosen neurons, biases with
their neurons, shared tensors whole.

Scale. In the whole net a neuron sums over all H neurons of the layer before; in a slice only over
n of them. A slice's incoming weights are therefore multiplied by H / n, per summed axis. Over a
random partition the slice's pre-activation then has the whole net's as its expectation, and the
whole net is the average of what its slices compute (docs/method.md derives it). The factor is
folded into the weights, so that a client trains an ordinary net and needs to know nothing of it;
merging takes it out again. With ``scaled=False`` weights are sent as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import ArgumentError
from flower_ist.submodels.axes import Axes
from flower_ist.submodels.partition import Indices

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
        ArgumentError: a tensor of whole numbers would have to be scaled.
    """
    return {name: _take_one(tensors[name], axes, name, indices, scaled) for name in axes.shapes}


def scale(axes: Axes, name: str, indices: Indices) -> float:
    """Return what a slice's tensor is multiplied by: the product of H / n over its summed axes."""
    factor = 1.0
    for axis in axes.summed[name]:
        label = axes.labels[name][axis]
        if label is not None:
            factor *= axes.widths[label] / len(indices[label])
    return factor


def factor_of(axes: Axes, name: str, indices: Indices, scaled: bool) -> float:
    """Return :func:`scale`, or 1 if weights are sent as they are."""
    return scale(axes, name, indices) if scaled else 1.0


def entries(axes: Axes, name: str, indices: Indices) -> tuple[NDArray[np.intp], ...]:
    """Return the index of a slice's entries in the whole tensor."""
    positions = dict(_positions(axes, name, indices))
    lengths = enumerate(axes.shapes[name])
    return np.ix_(*(positions.get(axis, np.arange(length)) for axis, length in lengths))


def keep_bits(old: NDArray[Any], new: NDArray[Any], factor: float) -> NDArray[Any]:
    """Return ``new / factor``, but exactly ``old`` where the client sent back what it was sent.

    Multiplying and dividing would round, and -0.0 would become 0.0.
    """
    if factor == 1.0:
        return np.where(new == old, old, new)
    factor_of_dtype = old.dtype.type(factor)
    return np.where(new == old * factor_of_dtype, old, new / factor_of_dtype)


def _take_one(
    whole: NDArray[Any], axes: Axes, name: str, indices: Indices, scaled: bool
) -> NDArray[Any]:
    part = whole
    for axis, rows in _positions(axes, name, indices):
        part = np.take(part, rows, axis=axis)
    factor = factor_of(axes, name, indices, scaled)
    if part is whole:
        return whole.copy()
    if factor == 1.0:
        return part
    if part.dtype.kind != "f":
        raise ArgumentError(f"{name!r} is {part.dtype}: only floating-point tensors can be scaled.")
    product: NDArray[Any] = part * part.dtype.type(factor)
    return product


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
