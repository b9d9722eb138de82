"""Which axis of which tensor belongs to which hidden width.

Independent Subnetwork Training cuts a network along its hidden neurons. A tensor that has an axis
of those neurons is cut along it; a tensor that has none is shared by all slices:

    fc1.weight (h1, -)    fc2.weight (h2, h1)    fc3.weight (-, h2)
    fc1.bias   (h1)       fc2.bias   (h2)        fc3.bias   (-)       <- shared

:func:`mlp_axes` derives this for a multilayer perceptron, :meth:`Axes.declare` takes it for
anything else. Pure Python: neither torch nor flwr is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from flower_ist.errors import FlowerIstError

Shape = tuple[int, ...]
Labels = tuple[str | None, ...]


class AxesError(FlowerIstError):
    """A declaration of axes does not fit the tensors."""


@dataclass(frozen=True)
class Axes:
    """A model's tensors, cut along named hidden widths.

    Attributes:
        shapes: name of each tensor -> its shape in the whole model.
        labels: name of each tensor -> for each of its axes, the width's name or None.
        widths: name of each hidden width -> its number of neurons.
        summed: name of each tensor -> the cut axes over which the layer sums its inputs.
    """

    shapes: Mapping[str, Shape]
    labels: Mapping[str, Labels]
    widths: Mapping[str, int]
    summed: Mapping[str, tuple[int, ...]]

    @classmethod
    def declare(
        cls,
        shapes: Mapping[str, Shape],
        labels: Mapping[str, Labels],
        summed: Mapping[str, tuple[int, ...]] | None = None,
        widths: Mapping[str, int] | None = None,
    ) -> Axes:
        """Declare by hand which axis belongs to which width.

        A width has as many neurons as its shortest axis, unless ``widths`` says otherwise. A longer
        axis must be a multiple of it and holds one block of consecutive entries per neuron, as a
        linear layer behind a flattened convolution does: with ``conv.weight (16, 3, 5, 5): ("c",
        None, None, None)`` and ``fc.weight (120, 400): ("h", "c")``, channel ``i`` owns columns
        ``25 i`` to ``25 i + 24``. Attention heads are such neurons: with 4 heads of 16, projections
        of 64 rows labeled "heads", and ``widths={"heads": 4}``.

        What is added up must share one width: the layers of a residual stream cut alike. Axes
        that hold several parts one after the other (``in_proj_weight`` of
        ``nn.MultiheadAttention``, the gates of an LSTM or a GLU, concatenated branches) do not give
        a neuron its entry of each part: store the parts as tensors of their own, or leave them
        uncut. Tied weights, one parameter with two names, need the same axes and ``summed``.

        Args:
            shapes: all tensors of the model, in the model's order.
            labels: tensors that are cut; a tensor left out is shared by all slices.
            widths: number of neurons of those widths that have fewer than their shortest axis.
            summed: for tensors that are not laid out (out, in, ...): the cut axes over which the
                layer sums, along which slices are scaled (docs/method.md). Otherwise every
                labeled axis but the first. E.g. ``{"embedding.weight": ()}`` for (V, "h"), whose
                rows are looked up, or ``{"deconv.weight": (0,)}`` for an (in, out, ...) layout.

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
        neurons: dict[str, int] = {}
        for name, shape in shapes.items():
            for label, length in zip(complete[name], shape, strict=True):
                if label is not None:
                    neurons[label] = min(length, neurons.get(label, length))
        if not neurons:
            raise AxesError("No axis belongs to a hidden width: there is nothing to cut.")
        for label, count in (widths or {}).items():
            if label not in neurons or count < 1:
                raise AxesError(
                    f"Width {label!r} is to have {count} neurons, but must be one of "
                    f"{', '.join(sorted(neurons))} and have at least 1."
                )
            neurons[label] = count
        for name, shape in shapes.items():
            for label, length in zip(complete[name], shape, strict=True):
                if label is not None and length % neurons[label]:
                    raise AxesError(
                        f"An axis of {length} in {name!r} is not a multiple of width {label!r}, "
                        f"which has {neurons[label]} neurons."
                    )
        sums = {
            name: tuple(axis for axis, label in enumerate(given) if axis and label is not None)
            for name, given in complete.items()
        }
        for name, axes in (summed or {}).items():
            if name not in shapes or any(
                complete[name][axis : axis + 1] in ((), (None,)) for axis in axes
            ):
                raise AxesError(
                    f"The summed axes {axes} of {name!r} are not cut axes of the model."
                )
            sums[name] = axes
        return cls(shapes=dict(shapes), labels=complete, widths=neurons, summed=sums)

    def block(self, name: str, axis: int) -> int:
        """Return how many consecutive entries of a labeled axis one neuron owns."""
        label = self.labels[name][axis]
        return 1 if label is None else self.shapes[name][axis] // self.widths[label]

    def slice_shapes(self, sizes: Mapping[str, int]) -> dict[str, Shape]:
        """Return the shapes of the small net that has ``sizes[width]`` neurons of each width."""
        return {
            name: tuple(
                length if label is None else sizes[label] * self.block(name, axis)
                for axis, (label, length) in enumerate(zip(self.labels[name], shape, strict=True))
            )
            for name, shape in self.shapes.items()
        }

    def share(self, sizes: Mapping[str, int]) -> float:
        """Return the share of the model's parameters that such a small net holds."""
        whole = sum(math.prod(shape) for shape in self.shapes.values())
        return sum(math.prod(shape) for shape in self.slice_shapes(sizes).values()) / whole


def mlp_axes(shapes: Mapping[str, Shape]) -> Axes:
    """Derive the axes of a multilayer perceptron of any depth and widths.

    Shapes do not show skip connections: a net with any needs :meth:`Axes.declare`, with one name
    for widths that are added to each other.

    Args:
        shapes: in order of depth, each layer's weight (out, in) and, if it has one, bias (out,), as
            in a PyTorch ``state_dict`` of linear layers. The hidden widths become ``h1``, ``h2``...

    Raises:
        AxesError: the tensors are not such a chain, or there is no hidden layer.
    """
    hint = "declare its axes by hand with Axes.declare"
    weights = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(weights) < 2:
        raise AxesError(f"This model has {len(weights)} linear layers and no hidden width: {hint}.")
    labels: dict[str, Labels] = {}
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
            width_out = f"h{layer}" if layer < len(weights) else None
            labels[name] = (width_out, width_in)
            width_in = width_out
        elif layer and shape == (shapes[weights[layer - 1]][0],):
            labels[name] = (width_in,)
        else:
            raise AxesError(f"{name!r} of shape {list(shape)} is not part of a plain MLP: {hint}.")
    return Axes.declare(shapes, labels)
