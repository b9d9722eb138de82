"""Which axis of which tensor belongs to which hidden width.

Independent Subnetwork Training cuts a network along its hidden neurons. A tensor that has an axis
of those neurons is cut along it; a tensor that has none is shared by all slices:

    fc1.weight (h1, -)    fc2.weight (h2, h1)    fc3.weight (-, h2)
    fc1.bias   (h1)       fc2.bias   (h2)        fc3.bias   (-)       <- shared

:func:`mlp_axes` derives this from the shapes of a multilayer perceptron,
:func:`flower_ist.modules.derive.derive_axes` from any module, and :meth:`Axes.declare` takes it as
you say it. Pure Python: neither torch nor flwr is imported.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from flower_ist.submodels.parts import AxesError, AxisLabel, Part, parts_of_axis, spans

Shape = tuple[int, ...]
Parts = tuple[Part, ...]


@dataclass(frozen=True)
class Axes:
    """A model's tensors, cut along named hidden widths.

    Attributes:
        shapes: name of each tensor that travels -> its shape in the whole model.
        parts: name of each of them -> for each of its axes, the axis's parts in order.
        widths: name of each hidden width -> its number of neurons.
        frozen: name of each tensor that never changes and stays where it is -> its shape.
    """

    shapes: Mapping[str, Shape]
    parts: Mapping[str, tuple[Parts, ...]]
    widths: Mapping[str, int]
    frozen: Mapping[str, Shape] = field(default_factory=dict)

    def is_cut(self, name: str) -> bool:
        """Return whether slices hold only a part of this tensor."""
        return any(part.width is not None for axis in self.parts[name] for part in axis)

    @classmethod
    def declare(
        cls,
        shapes: Mapping[str, Shape],
        labels: Mapping[str, Sequence[AxisLabel]],
        summed: Mapping[str, tuple[int, ...]] | None = None,
        widths: Mapping[str, int] | None = None,
        frozen: Mapping[str, Shape] | None = None,
    ) -> Axes:
        """Declare by hand which axis belongs to which width.

        A width has as many neurons as its shortest axis, unless ``widths`` says otherwise. A longer
        axis must be a multiple of it and holds one block of consecutive entries per neuron, as a
        linear layer behind a flattened convolution does: with ``conv.weight (16, 3, 5, 5): ("c",
        None, None, None)`` and ``fc.weight (120, 400): ("h", "c")``, channel ``i`` owns columns
        ``25 i`` to ``25 i + 24``. Attention heads are such neurons: with 4 heads of 16, projections
        of 64 rows labeled "heads", and ``widths={"heads": 4}``.

        An axis may have several parts, one after the other. A tuple of widths stands for parts of
        one length: the gates of an LSTM are ``lstm.weight_hh_l0 (4 h, h): (("h", "h", "h", "h"),
        "h")``, a fused projection ``qkv.weight (3 d, d): (("heads",) * 3, None)``. Parts of other
        lengths say how many entries a neuron owns: ``conv.weight (c, a + b, 3, 3): ("c", (("a", 1),
        ("b", 1)), None, None)``; ``(None, 5)`` are five entries that every slice has.

        Layers whose outputs are added must share one width, as along a residual stream. Tied
        weights, one parameter with two names, need the same axes and ``summed``. Whether a
        declaration is right is shown by :func:`flower_ist.modules.prove.prove`.

        Args:
            shapes: all tensors of the model, in the model's order.
            labels: tensors that are cut; a tensor left out is shared by all slices.
            summed: for tensors that are not laid out (out, in, ...): the cut axes over which the
                layer sums, along which slices are scaled (docs/method.md). By default every
                labeled axis but the first. E.g. ``{"embedding.weight": ()}`` for (V, "h"), whose
                rows are looked up, or ``{"deconv.weight": (0,)}`` for an (in, out, ...) layout.
            widths: number of neurons of those widths that have fewer than their shortest axis.
            frozen: tensors of the model's state that are never trained: they stay on the clients
                and are not in ``shapes``.

        Raises:
            AxesError: a label names no tensor, has the wrong number of axes, or does not divide; a
                width of ``widths`` is not declared, or has no neuron.
        """
        for name, axis_labels in labels.items():
            if name not in shapes:
                raise AxesError(
                    f"The axes of {name!r} are declared, but the model has no such tensor."
                )
            if len(axis_labels) != len(shapes[name]):
                raise AxesError(
                    f"{len(axis_labels)} axes are declared for {name!r}, whose shape is "
                    f"{list(shapes[name])}."
                )
        complete = {name: labels.get(name, (None,) * len(shape)) for name, shape in shapes.items()}
        neurons = _count_neurons(shapes, complete, widths or {})
        sums = {name: tuple(range(1, len(shape))) for name, shape in shapes.items()}
        for name, axes in (summed or {}).items():
            if name not in shapes or any(
                axis not in range(len(shapes[name])) or not complete[name][axis] for axis in axes
            ):
                raise AxesError(
                    f"The summed axes {axes} of {name!r} are not cut axes of the model."
                )
            sums[name] = axes
        parts = {
            name: tuple(
                parts_of_axis(name, label, length, neurons, summed=axis in sums[name])
                for axis, (label, length) in enumerate(zip(complete[name], shape, strict=True))
            )
            for name, shape in shapes.items()
        }
        return cls(dict(shapes), parts, neurons, dict(frozen or {}))

    def neighbors(self) -> dict[str, set[str]]:
        """Return the widths that each width meets in some tensor, on another axis of it."""
        neighbors: dict[str, set[str]] = {width: set() for width in self.widths}
        for parts in self.parts.values():
            sides = [{part.width for part in axis if part.width is not None} for axis in parts]
            for i, side in enumerate(sides):
                for other in sides[i + 1 :]:
                    for width in side:
                        neighbors[width] |= other
                    for width in other:
                        neighbors[width] |= side
        return neighbors

    def slice_shapes(self, sizes: Mapping[str, int]) -> dict[str, Shape]:
        """Return the shapes of the small net that has ``sizes[width]`` neurons of each width."""
        return {
            name: tuple(sum(part.length(sizes) for part in axis) for axis in parts)
            for name, parts in self.parts.items()
        }

    def share(self, sizes: Mapping[str, int]) -> float:
        """Return the share of the model's parameters that such a small net holds."""
        whole = sum(math.prod(shape) for shape in self.shapes.values())
        return sum(math.prod(shape) for shape in self.slice_shapes(sizes).values()) / whole


def _count_neurons(
    shapes: Mapping[str, Shape],
    labels: Mapping[str, Sequence[AxisLabel]],
    given: Mapping[str, int],
) -> dict[str, int]:
    """Return the number of neurons of each width: its shortest part's length, unless given."""
    neurons: dict[str, int] = {}
    named = set()
    for name, shape in shapes.items():
        for label, length in zip(labels[name], shape, strict=True):
            for width, block, entries in spans(name, label, length):
                if width is not None:
                    named.add(width)
                    if block is None:
                        neurons[width] = min(entries, neurons.get(width, entries))
    if not named:
        raise AxesError("No axis belongs to a hidden width: there is nothing to cut.")
    for width, count in given.items():
        if width not in named or count < 1:
            raise AxesError(
                f"Width {width!r} is given {count} neurons, but must be one of "
                f"{', '.join(sorted(named))} and have at least 1."
            )
        neurons[width] = count
    if missing := named - neurons.keys():
        raise AxesError(
            f"Nothing says how many neurons {', '.join(sorted(missing))} have: name them in widths."
        )
    return neurons


def mlp_axes(shapes: Mapping[str, Shape], cut: Collection[int] | None = None) -> Axes:
    """Derive the axes of a multilayer perceptron of any depth and widths.

    Shapes do not show skip connections: a net with any needs :meth:`Axes.declare`, with one name
    for widths that are added to each other.

    Args:
        shapes: in order of depth, each layer's weight (out, in) and, if it has one, bias (out,), as
            in a PyTorch ``state_dict`` of linear layers. The hidden widths become ``h1``, ``h2``...
        cut: numbers of the hidden layers whose neurons are cut, from 1; all of them if None. With
            every second one (1, 3, ...) no weight is cut on both sides, so that a round of K
            disjoint slices trains every weight (docs/method.md).

    Raises:
        AxesError: the tensors are not such a chain, or there is no hidden layer.
    """
    hint = "declare its axes by hand with Axes.declare"
    weights = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(weights) < 2:
        raise AxesError(f"This model has {len(weights)} linear layers and no hidden width: {hint}.")
    labels: dict[str, tuple[str | None, ...]] = {}
    width_in: str | None = None
    layer = 0
    for name, shape in shapes.items():
        if len(shape) == 2:
            if layer and shape[1] != shapes[weights[layer - 1]][0]:
                raise AxesError(
                    f"{name!r} takes {shape[1]} inputs, but the layer before it has "
                    f"{shapes[weights[layer - 1]][0]} outputs: {hint}."
                )
            layer += 1
            is_cut = layer < len(weights) and (cut is None or layer in cut)
            width_out = f"h{layer}" if is_cut else None
            labels[name] = (width_out, width_in)
            width_in = width_out
        elif layer and shape == (shapes[weights[layer - 1]][0],):
            labels[name] = (width_in,)
        else:
            raise AxesError(f"{name!r} of shape {list(shape)} is not part of a plain MLP: {hint}.")
    return Axes.declare(shapes, labels)
