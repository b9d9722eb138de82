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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flower_ist.blocks import Blocked, Blocks, joined, rooms, runs
from flower_ist.errors import ArgumentError
from flower_ist.submodels.axes import Axes, Parts, Shape
from flower_ist.submodels.partition import Indices

Tensors = Mapping[str, NDArray[Any]]
# One number, or one for each entry along some axes.
Factor: TypeAlias = float | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cut:
    """Where a slice lies in the model, and on which scale it is sent.

    Attributes:
        axes: which axis of the model's tensors belongs to which hidden width.
        indices: width -> indices of the slice's neurons (n,).
        scaled: weights are multiplied by (H / n) ** power: 1 along summed axes, unless the axes
            share the factor between the two sides of a neuron.
    """

    axes: Axes
    indices: Indices
    scaled: bool = True

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of each of the slice's tensors."""
        return dict(self._shapes)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        return self.axes.slice_shapes({width: len(rows) for width, rows in self.indices.items()})

    def factor(self, name: str) -> Factor:
        """Return what a tensor is multiplied by: the product over its axes of (H / n) ** power.

        It is a number, or, where the parts of an axis differ, an array that broadcasts to the
        slice's tensor.
        """
        factor: Factor = 1.0
        if self.scaled:
            for axis, parts in enumerate(self.axes.parts[name]):
                later = len(self.axes.parts[name]) - axis - 1
                factor = factor * self._factor_along(parts, later)
        return factor

    def factors(self) -> dict[str, Factor]:
        """Return the factors of the tensors that are multiplied by anything but 1."""
        factors = {name: self.factor(name) for name in self.axes.shapes}
        return {name: factor for name, factor in factors.items() if np.any(factor != 1.0)}

    def lr_scales(self) -> dict[str, float]:
        """Return the mean of each of :meth:`factors`."""
        return {name: float(np.mean(factor)) for name, factor in self.factors().items()}

    def entries(self, name: str) -> tuple[NDArray[np.intp], ...]:
        """Return an index of the slice's entries in a whole tensor.

        It covers the axes up to the last one that is cut: numpy copies the rest in one piece.
        """
        rows_of = dict(self._rows(name))
        lengths = self.axes.shapes[name][: max(rows_of, default=-1) + 1]
        return np.ix_(
            *(rows_of.get(axis, np.arange(length)) for axis, length in enumerate(lengths))
        )

    def places(self, name: str) -> Iterator[tuple[Any, Factor]]:
        """Yield an index of each block of a slice's tensor in the whole one, and its factor."""
        rows_of, factor, shape = dict(self._rows(name)), self.factor(name), self._shapes[name]
        varies = isinstance(factor, np.ndarray) and factor.shape[:1] == shape[:1]
        index: list[Any] = [slice(None)] * (max(rows_of, default=0) + 1)
        for axis in range(1, len(index)):
            # With one cut axis, slices along the others are five times as fast as indices.
            if axis in rows_of or len(rows_of) > 1:
                index[axis] = rows_of.get(axis, np.arange(shape[axis]))
        first = rows_of.get(0)
        for run in runs(shape):
            if not isinstance(run, EllipsisType):
                if first is not None:
                    index[0] = first[run]
                else:
                    index[0] = run if len(rows_of) < 2 else np.arange(run.start, run.stop)
            where = np.ix_(*index) if len(rows_of) > 1 else tuple(index)
            yield where if shape else run, np.asarray(factor)[run] if varies else factor

    def part(self, name: str, whole: NDArray[Any]) -> NDArray[Any]:
        """Return the slice's entries of a whole tensor, not scaled: a new contiguous array."""
        return replace(self, scaled=False).take_one(name, whole)

    def take(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Cut the slice, a small dense net, out of the whole model.

        Args:
            tensors: the whole model, with the shapes of ``axes``.

        Returns:
            New contiguous arrays, one per tensor, on the slice's scale.

        Raises:
            ArgumentError: a tensor of whole numbers would have to be scaled.
        """
        return {name: self.take_one(name, tensors[name]) for name in self.axes.shapes}

    def take_one(self, name: str, whole: NDArray[Any]) -> NDArray[Any]:
        """Return one tensor of :meth:`take`."""
        return joined(self.blocks(name, whole), whole.dtype, self._shapes[name])

    def blocks(self, name: str, whole: NDArray[Any]) -> Blocks:
        """Yield the blocks of one tensor of :meth:`take`.

        Raises:
            ArgumentError: as :meth:`take` does.
        """
        if whole.dtype.kind != "f" and np.any(self.factor(name) != 1.0):
            raise ArgumentError(
                f"{name!r} is {whole.dtype}, but only floating-point tensors can be scaled: "
                "declare its summed axes as (), or leave it uncut."
            )
        for (run, room), (where, factor) in zip(
            rooms(self._shapes[name], whole.dtype), self.places(name), strict=True
        ):
            read_block(whole, where, room)
            if not isinstance(factor, float) or factor != 1.0:
                room *= np.asarray(factor, room.dtype)
            yield run, room

    def _rows(self, name: str) -> list[tuple[int, NDArray[np.intp]]]:
        """Return each cut axis of a tensor with the slice's entries along it."""
        return [
            (axis, self._rows_along(parts))
            for axis, parts in enumerate(self.axes.parts[name])
            if any(part.width is not None for part in parts)
        ]

    def _rows_along(self, parts: Parts) -> NDArray[np.intp]:
        start, found = 0, []
        for part in parts:
            if part.width is None:
                rows = np.arange(part.block)
            else:
                rows = self.indices[part.width]
                if part.block > 1:
                    rows = (rows[:, None] * part.block + np.arange(part.block)).reshape(-1)
            found.append(rows + start if start else rows)
            start += part.length(self.axes.widths)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _factor_along(self, parts: Parts, later_axes: int) -> Factor:
        sizes = {part.width: len(self.indices[part.width]) for part in parts if part.width}
        factors = [
            1.0 if p.width is None else (self.axes.widths[p.width] / sizes[p.width]) ** p.power
            for p in parts
        ]
        if len(set(factors)) == 1:
            return factors[0]
        lengths = [part.length(sizes) for part in parts]
        return np.repeat(factors, lengths).reshape(-1, *[1] * later_axes)


@dataclass(frozen=True, eq=False)
class Returned:
    """One client's trained slice.

    Attributes:
        cut: where the slice was taken.
        tensors: the small net's tensors, with the names, shapes and dtypes of :meth:`Cut.take`.
        weight: the reply's weight in means, e.g. the client's number of examples; more than 0.
        changes: of tensors that came as changes, their difference from what was sent; they need not
            be read from ``tensors`` then.
    """

    cut: Cut
    tensors: Tensors
    weight: float
    changes: Mapping[str, Blocked] = field(default_factory=dict)

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


def read_block(whole: NDArray[Any], where: Any, room: NDArray[Any]) -> None:
    """Copy a block of a whole tensor, at an index of :meth:`Cut.places`, into memory for it."""
    *others, last = where if isinstance(where, tuple) else (where,)
    if isinstance(last, np.ndarray) and not any(isinstance(o, np.ndarray) for o in others):
        # Twice as fast as an index; "clip" checks no bounds again.
        np.take(whole[tuple(others)], last, axis=len(others), out=room, mode="clip")
    else:
        room[...] = whole[where]


def restore_unchanged(old: NDArray[Any], new: NDArray[Any], factor: Factor = 1.0) -> NDArray[Any]:
    """Return ``new / factor``, but exactly ``old`` where the client sent back what it was sent.

    Multiplying and dividing would round, and -0.0 would become 0.0.

    Args:
        old: entries of the model, before they were multiplied by the factor and sent.
        new: what came back, of the same shape and dtype.
        factor: of :meth:`Cut.factor`.
    """
    if old.dtype.kind != "f":
        return new  # never scaled
    scaled = isinstance(factor, np.ndarray) or factor != 1.0
    of_dtype = np.asarray(factor, old.dtype)
    restored: NDArray[Any] = old * of_dtype if scaled else old  # as it was sent
    unchanged = new == restored
    restored = np.divide(new, of_dtype, out=restored) if scaled else new
    if not unchanged.any():
        return restored
    # Selected by their bits, in a fifth of the time that numpy takes where a mask is irregular.
    bits = np.dtype(f"i{old.dtype.itemsize}")
    mask = np.negative(unchanged.view(np.int8), dtype=bits)
    kept = np.asarray(old, order="C").view(bits)
    other = np.asarray(restored, order="C").view(bits)
    mask &= kept ^ other
    mask ^= other
    selected: NDArray[Any] = mask.view(old.dtype)
    return selected
