"""What a message's tensors are: their names, dtypes and shapes, and the text that says so."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import FlowerIstError

_MOST_AXES = 32  # the limit of numpy 1
_MOST_ENTRIES = 2**56

# name of each tensor -> its dtype and shape, in the order in which the tensors are packed
Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]


class WireError(FlowerIstError):
    """An array on the wire does not hold what it should."""


class CodecError(FlowerIstError):
    """Numbers that a codec cannot encode, or bytes that it cannot decode.

    The text is the rest of a sentence that begins with their name.
    """


def layout_of(tensors: Mapping[str, NDArray[Any]]) -> Layout:
    """Return the layout of tensors in their own order."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def layout_to_text(layout: Layout) -> str:
    """Write a layout as compact JSON, e.g. ``[["fc1.bias","<f4",[256]]]``."""
    entries = [
        [name, dtype.newbyteorder("<").str, list(shape)] for name, (dtype, shape) in layout.items()
    ]
    return json.dumps(entries, separators=(",", ":"))


def layout_from_text(text: str) -> Layout:
    """Read what :func:`layout_to_text` wrote.

    Raises:
        WireError: the string is not a layout of numeric arrays.
    """
    try:
        layout = {
            str(name): (np.dtype(dtype), tuple(int(length) for length in shape))
            for name, dtype, shape in json.loads(text)
        }
    except (ValueError, TypeError, OverflowError, SyntaxError, RecursionError) as err:
        raise WireError(f"The message's packed layout cannot be read: {err}.") from err
    for name, (dtype, shape) in layout.items():
        if dtype.kind not in "fiub" or not _can_be(shape):
            raise WireError(f"The packed layout gives {name!r} as {dtype}{list(shape)}.")
    return layout


def check_layout(tensors: Mapping[str, NDArray[Any]], layout: Layout) -> None:
    """Refuse tensors that are not exactly those of a layout.

    Raises:
        WireError: a tensor is missing, not in the layout, or of a different dtype or shape.
    """
    if tensors.keys() != layout.keys():
        raise WireError(
            f"The arrays are {sorted(tensors)}, but the slice that was sent has {sorted(layout)}."
        )
    for name, (dtype, shape) in layout.items():
        tensor = tensors[name]
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise WireError(
                f"{name!r} came back as {tensor.dtype}{list(tensor.shape)}, but was sent as "
                f"{dtype}{list(shape)}."
            )


def _can_be(shape: tuple[int, ...]) -> bool:
    """Return whether numpy could make an array of this shape, given enough memory."""
    entries = math.prod(max(length, 1) for length in shape)  # an axis of 0 hides no other
    return min(shape, default=0) >= 0 and len(shape) <= _MOST_AXES and entries < _MOST_ENTRIES
