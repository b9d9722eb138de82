"""Check a model before it is cut: what cannot be trained in slices is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.blocks import largest
from flower_ist.errors import ArgumentError, FlowerIstError
from flower_ist.submodels.axes import Axes, Shape
from flower_ist.submodels.cut import Tensors

# A slice with fewer neurons of a width is warned of.
FEW_NEURONS = 8
# So many widths in a row may be cut without a warning.
_DEEPEST = 2
# Floating-point numbers, signed and unsigned integers, booleans.
_KINDS = "fiub"


class ModelError(FlowerIstError):
    """A model's tensors cannot be trained in slices."""


def check_shapes(shapes: Mapping[str, Shape], axes: Axes) -> None:
    """Refuse a model that the axes were not declared for.

    Raises:
        ArgumentError: a tensor is missing, is one too many, or has another shape.
    """
    known = {**axes.shapes, **axes.frozen}
    if shapes.keys() != known.keys():
        raise ArgumentError(
            f"The model's arrays are {sorted(shapes)}, but axes are declared for {sorted(known)}."
        )
    for name, declared in known.items():
        if shapes[name] != tuple(declared):
            raise ArgumentError(
                f"{name!r} of the model is {list(shapes[name])}, but its axes are declared for "
                f"{list(declared)}."
            )


def check_model(tensors: Tensors, axes: Axes, max_weight: float, *, scaled: bool) -> None:
    """Refuse a model whose slices would come back as something that cannot be merged.

    Args:
        tensors: the whole model, with the shapes of ``axes``.
        axes: which axis belongs to which width.
        max_weight: largest magnitude of a weight that a reply may have.
        scaled: as the slices will be (:class:`flower_ist.submodels.cut.Cut`).

    Raises:
        ModelError: a tensor holds something other than real numbers, or a value that is not finite
            or above ``max_weight``; or two tensors are one parameter in the client's module, but
            would be scaled differently.
    """
    for name, tensor in tensors.items():
        if tensor.dtype.kind not in _KINDS:
            raise ModelError(f"{name!r} is {tensor.dtype}: only real numbers can be merged.")
        if tensor.dtype.kind != "f":
            continue
        most = largest(tensor)
        if not most <= max_weight:
            raise ModelError(
                f"{name!r} of the model holds {most:.3g}, but replies with values above "
                f"max_weight = {max_weight:g} are refused: raise max_weight, or keep a constant "
                "out of the model's state with register_buffer(..., persistent=False)."
            )
    if scaled:
        _check_tied(tensors, axes)


def cautions(axes: Axes, num_slices: int) -> list[str]:
    """Return one sentence for each thing that may cost accuracy (docs/method.md).

    Args:
        axes: which axis belongs to which width.
        num_slices: K.
    """
    found = []
    sizes = {width: count // num_slices for width, count in axes.widths.items()}
    if few := sorted((size, width) for width, size in sizes.items() if size < FEW_NEURONS):
        names = ", ".join(f"{width!r} ({size})" for size, width in few[:3])
        more = f" and {len(few) - 3} more widths" if len(few) > 3 else ""
        found.append(
            f"One of {num_slices} slices has fewer than {FEW_NEURONS} neurons of {names}{more}: "
            "use fewer slices where accuracy suffers."
        )
    chained = [width for width, others in axes.neighbors().items() if others]
    if len(chained) > _DEEPEST:
        found.append(
            f"{len(chained)} widths that meet in one weight are cut, {chained[0]!r} among them: in "
            f"more than {_DEEPEST} layers in a row slices learn badly; cut every second width."
        )
    return found


def _check_tied(tensors: Tensors, axes: Axes) -> None:
    """Refuse equal tensors of which one would travel times H / n and the other not.

    A module that ties two weights has one parameter with two names: the client loads both into it,
    trains the one that came last, and sends it back twice.
    """
    seen: dict[bytes, str] = {}  # by hash: no tensor is kept twice
    for name, tensor in tensors.items():
        if not axes.is_cut(name) or _is_constant(tensor):
            continue
        first = seen.setdefault(hashlib.sha256(np.ascontiguousarray(tensor).data).digest(), name)
        if tensors[first].shape != tensor.shape or tensors[first].dtype != tensor.dtype:
            continue
        if axes.parts[first] != axes.parts[name]:
            raise ModelError(
                f"{first!r} and {name!r} hold the same values, as tied weights do, but would be "
                "scaled differently in a slice: untie them, or declare the same axes and the same "
                "summed axes for both."
            )


def _is_constant(tensor: NDArray[Any]) -> bool:
    return bool(tensor.size < 2 or (tensor == tensor.flat[0]).all())
