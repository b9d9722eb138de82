"""Cut a slice out of a model. Pure numpy; :mod:`flower_ist.submodels.merging` puts it back.

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
from flower_ist.submodels.axes import Axes, Shape
from flower_ist.submodels.partition import Indices

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Cut:
    """Where a slice lies in the model, and on which scale it is sent.

    Attributes:
        axes: which axis of the model's tensors belongs to which hidden width.
        indices: width -> indices of the slice's neurons (n,).
        scaled: weights are multiplied by H / n along summed axes.
    """

    axes: Axes
    indices: Indices
    scaled: bool = True

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of each of the slice's tensors."""
        return self.axes.slice_shapes({width: len(rows) for width, rows in self.indices.items()})

    def factor(self, name: str) -> float:
        """Return what a tensor is multiplied by: the product of H / n over its summed axes."""
        factor = 1.0
        for axis in self.axes.summed[name] if self.scaled else ():
            label = self.axes.labels[name][axis]
            if label is not None:
                factor *= self.axes.widths[label] / len(self.indices[label])
        return factor

    def factors(self) -> dict[str, float]:
        """Return the factors of the tensors that are multiplied by anything but 1."""
        factors = {name: self.factor(name) for name in self.axes.shapes}
        return {name: factor for name, factor in factors.items() if factor != 1.0}

    def entries(self, name: str) -> tuple[NDArray[np.intp], ...]:
        """Return an index of the slice's entries in a whole tensor.

        It covers the axes up to the last one that is cut: numpy copies the rest in one piece.
        """
        rows_of = dict(self._rows(name))
        lengths = self.axes.shapes[name][: max(rows_of, default=-1) + 1]
        return np.ix_(
            *(rows_of.get(axis, np.arange(length)) for axis, length in enumerate(lengths))
        )

    def part(self, name: str, whole: NDArray[Any]) -> NDArray[Any]:
        """Return the slice's entries of a whole tensor, not scaled: a new contiguous array."""
        cut_axes = self._rows(name)
        if not cut_axes:
            return whole.copy()
        if len(cut_axes) == 1:  # twice as fast as an index, if the axis is not the first one
            axis, rows = cut_axes[0]
            return np.take(whole, rows, axis=axis)
        return np.ascontiguousarray(whole[self.entries(name)])

    def take(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Cut the slice, a small dense net, out of the whole model.

        Args:
            tensors: the whole model, with the shapes of ``axes``.

        Returns:
            New contiguous arrays, one per tensor, on the slice's scale.

        Raises:
            ArgumentError: a tensor of whole numbers would have to be scaled.
        """
        return {name: self._take_one(name, tensors[name]) for name in self.axes.shapes}

    def _take_one(self, name: str, whole: NDArray[Any]) -> NDArray[Any]:
        part, factor = self.part(name, whole), self.factor(name)
        if factor != 1.0:
            if part.dtype.kind != "f":
                raise ArgumentError(
                    f"{name!r} is {part.dtype}, but only floating-point tensors can be scaled: "
                    "declare its summed axes as (), or leave it uncut."
                )
            part *= part.dtype.type(factor)
        return part

    def _rows(self, name: str) -> list[tuple[int, NDArray[np.intp]]]:
        """Return each cut axis of a tensor with the entries that the chosen neurons own there."""
        found = []
        for axis, label in enumerate(self.axes.labels[name]):
            if label is not None:
                rows, block = self.indices[label], self.axes.block(name, axis)
                if block > 1:
                    rows = (rows[:, None] * block + np.arange(block)).reshape(-1)
                found.append((axis, rows))
        return found


@dataclass(frozen=True, eq=False)
class Returned:
    """One client's trained slice.

    Attributes:
        cut: where the slice was taken.
        tensors: the small net's tensors, with the names, shapes and dtypes of :meth:`Cut.take`.
        weight: the reply's weight in means, e.g. the client's number of examples; more than 0.
    """

    cut: Cut
    tensors: Tensors
    weight: float

    def change(self, name: str, whole: NDArray[Any]) -> NDArray[np.float64]:
        """Return how far the client moved a slice's tensor, on the model's scale.

        Args:
            name: of the tensor.
            whole: the model's, as it was when the slice was taken.
        """
        old = self.cut.part(name, whole)
        new = restore_unchanged(old, self.tensors[name], self.cut.factor(name))
        change: NDArray[np.float64] = np.subtract(new, old, dtype=np.float64)
        return change


def restore_unchanged(old: NDArray[Any], new: NDArray[Any], factor: float = 1.0) -> NDArray[Any]:
    """Return ``new / factor``, but exactly ``old`` where the client sent back what it was sent.

    Multiplying and dividing would round, and -0.0 would become 0.0.

    Args:
        old: entries of the model, before they were multiplied by the factor and sent.
        new: what came back, of the same shape and dtype.
        factor: of :meth:`Cut.factor`.
    """
    if factor == 1.0:
        return np.where(new == old, old, new)
    factor_of_dtype = old.dtype.type(factor)
    restored: NDArray[Any] = old * factor_of_dtype  # as it was sent
    unchanged = new == restored
    np.divide(new, factor_of_dtype, out=restored)
    np.copyto(restored, old, where=unchanged)
    return restored
