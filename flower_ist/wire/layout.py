"""One flat packed array per message, the layout that describes it, and wire dtypes.

Flower sends each array as a separate object (about 450 bytes and two requests each), so a slice
is sent as ONE flat array: its tensors' bytes one after another. Where each tensor begins follows
from a short layout in the message's ConfigRecord. No neuron index is sent (``compact`` names a
slice's neurons by a bit each): a client sees a small dense net.

With a :class:`Codec` beside the layout the tensors are quantized (:mod:`flower_ist.wire.quantize`),
and the client replies with the change of its tensors instead of the tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from flower_ist.errors import FlowerIstError
from flower_ist.wire.compact import Known, decode_compact, encode_compact
from flower_ist.wire.protocol import COMPACT, NUMPY_STYPE, PACKED_STYPE
from flower_ist.wire.quantize import QuantizeError, check_wire_dtype, encoded_bytes
from flower_ist.wire.quantize import decode as dequantize
from flower_ist.wire.quantize import encode as quantize
from flower_ist.wire.squeeze import SqueezeError, squeezed, unsqueezed
from flower_ist.wire.tensor_array import TensorArray

_MOST_AXES = 32  # the limit of numpy 1
_MOST_ENTRIES = 2**56

# In the place of a wire dtype: tensors as they are, compressed without loss.
SQUEEZED = "squeezed"

# name of each tensor -> its dtype and shape, in the order in which the tensors are packed
Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]


class WireError(FlowerIstError):
    """An array on the wire does not hold what it should."""


@dataclass(frozen=True)
class Codec:
    """How one message's tensors are quantized, and how its reply's must be.

    Attributes:
        down: wire dtype of the tensors in the message.
        up: wire dtype of the reply's tensors, which are changes: trained - received.
        seed: of the stochastic rounding of the reply, 0 to 2^32 - 1.
    """

    down: str
    up: str
    seed: int

    def to_text(self) -> str:
        """Return it as a string such as ``int8 int4 12345``."""
        return f"{self.down} {self.up} {self.seed}"

    @classmethod
    def from_text(cls, text: str) -> Codec:
        """Read what :meth:`to_text` wrote.

        Raises:
            WireError: the string is not a codec.
        """
        try:
            down, up, seed = text.split()
            check_wire_dtype(down)
            check_wire_dtype(up)
            return cls(down, up, int(seed) % 2**32)
        except (ValueError, QuantizeError) as err:
            raise WireError(f"The message's packed codec {text[:40]!r} cannot be read.") from err


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


def layout_bytes(layout: Layout, wire_dtype: str = "float32") -> int:
    """Return the size of a layout's tensors in bytes."""
    return sum(encoded_bytes(dtype, shape, wire_dtype) for dtype, shape in layout.values())


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


def pack(
    tensors: Mapping[str, NDArray[Any]],
    layout: Layout,
    wire_dtype: str = "float32",
    noise: np.random.Philox | None = None,
    known: Known | None = None,
) -> Array:
    """Pack tensors into one flat Flower Array: their little-endian bytes in the layout's order.

    Args:
        tensors: exactly those of the layout.
        layout: their order, dtypes and shapes.
        wire_dtype: ``float32`` packs every tensor as it is, and :data:`SQUEEZED` compresses that.
        noise: random bits for stochastic rounding; None rounds to the nearest.
        known: what the other end knows, for ``compact``.

    Raises:
        WireError: the tensors are not the layout's, or cannot be quantized.
    """
    check_layout(tensors, layout)
    if wire_dtype == SQUEEZED:
        return _flat(squeezed(tensors, layout), SQUEEZED)
    if wire_dtype == COMPACT:
        try:
            return _flat(encode_compact(tensors, layout, known or Known()), COMPACT)
        except QuantizeError as err:
            raise WireError(f"A tensor {err}, so it cannot be sent as {COMPACT}.") from err
    parts = []
    for name in layout:
        try:
            parts.append(quantize(tensors[name], wire_dtype, noise))
        except QuantizeError as err:
            raise WireError(
                f"{name!r} {err}, so it cannot be sent as {wire_dtype}: use a smaller learning "
                "rate, or the wire dtype float32."
            ) from err
    return _flat(b"".join(parts), _flat_dtype(layout, wire_dtype))


def unpack(
    array: Array, layout: Layout, wire_dtype: str = "float32", known: Known | None = None
) -> dict[str, NDArray[Any]]:
    """Return the tensors of a packed array; in ``float32`` as read-only views of its bytes.

    What is allocated depends on the layout alone, not on what the array claims. Values may be
    infinite or not a number.

    Raises:
        WireError: as :func:`unpackers` does.
    """
    made = unpackers(array, layout, wire_dtype, known)
    return {name: unpacked() for name, unpacked in made.items()}


def unpackers(
    array: Array, layout: Layout, wire_dtype: str = "float32", known: Known | None = None
) -> dict[str, Callable[[], NDArray[Any]]]:
    """Return, for each tensor of a packed array, a function that unpacks it.

    What is compressed is unpacked at once: its functions return the same read-only tensor.

    Raises:
        WireError: the array is of a different kind or dtype, or does not hold exactly the layout's
            bytes.
    """
    if array.stype != PACKED_STYPE:
        raise WireError(f"The array is of kind {array.stype!r} instead of {PACKED_STYPE!r}.")
    flat_dtype = _flat_dtype(layout, wire_dtype)
    if array.dtype != flat_dtype:
        raise WireError(f"The array's dtype is {array.dtype} instead of {flat_dtype}.")
    if wire_dtype in (SQUEEZED, COMPACT):
        try:
            if wire_dtype == SQUEEZED:
                return _as_they_are(unsqueezed(array.data, layout))
            return _as_they_are(decode_compact(array.data, layout, known or Known()))
        except (SqueezeError, QuantizeError) as err:
            raise WireError(f"The array {err}.") from err
    expected = layout_bytes(layout, wire_dtype)
    if len(array.data) != expected:
        raise WireError(f"The array has {len(array.data)} bytes instead of {expected}.")
    found: dict[str, Callable[[], NDArray[Any]]] = {}
    data, offset = memoryview(array.data), 0
    for name, (dtype, shape) in layout.items():
        end = offset + encoded_bytes(dtype, shape, wire_dtype)
        found[name] = partial(dequantize, data[offset:end], dtype, shape, wire_dtype)
        offset = end
    return found


def _as_they_are(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Callable[[], NDArray[Any]]]:
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return {name: partial(tensors.__getitem__, name) for name in tensors}


def tensors_of(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return the tensors of an ordinary ArrayRecord of this process, as read-only views.

    Raises:
        WireError: an array is not a numpy array.
    """
    return {
        name: decode(array, np.dtype(array.dtype), tuple(array.shape))
        for name, array in record.items()
    }


def record_of(tensors: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return an ordinary ArrayRecord of tensors without copying them."""
    record = ArrayRecord()  # given a dict, it would serialize every array
    for name, tensor in tensors.items():
        record[name] = TensorArray(tensor)
    return record


def largest(tensor: NDArray[Any]) -> float:
    """Return the largest magnitude in a tensor, NaN if it holds one, 0 if it is empty or boolean.

    Unlike ``abs(tensor).max()`` it makes no copy of the tensor.
    """
    if not tensor.size or tensor.dtype.kind == "b":
        return 0.0
    # If there is a NaN, one of the two is NaN; the other way around would hide it from max().
    low, high = float(tensor.min()), float(tensor.max())
    return math.nan if math.isnan(low) else max(-low, high)


def decode(array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an ordinary Flower Array's values as a read-only view, after checking every claim.

    ``Array.numpy()`` allocates whatever an array's inner header asks for; this reads the header
    first and allocates nothing.

    Raises:
        WireError: the array, or the .npy data in it, is not of this dtype and shape.
    """
    expected = f"{dtype}{list(shape)}"
    if isinstance(array, TensorArray):  # made in this process, so its claims are true
        if (array.dtype, array.shape) != (str(dtype), shape):
            raise WireError(f"The array is {array.dtype}{list(array.shape)} instead of {expected}.")
        return array.tensor
    if array.stype != NUMPY_STYPE:
        raise WireError(f"The array is of kind {array.stype!r} instead of {NUMPY_STYPE!r}.")
    if (array.dtype, tuple(array.shape)) != (str(dtype), shape):
        raise WireError(f"The array is {array.dtype}{list(array.shape)} instead of {expected}.")
    stream = BytesIO(array.data)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise WireError(f"The array's data are .npy version {version} instead of (1, 0).")
        inner = np.lib.format.read_array_header_1_0(stream)
    except WireError:
        raise
    except Exception as err:  # numpy's header parser raises errors of many kinds
        raise WireError("The array's data are not in .npy form.") from err
    inner_shape, fortran_order, inner_dtype = inner
    if (inner_dtype, inner_shape) != (dtype, shape):
        raise WireError(f"The array's data hold {inner_dtype}{list(inner_shape)}, not {expected}.")
    count = math.prod(shape)
    if len(array.data) - stream.tell() != count * dtype.itemsize:
        raise WireError(f"The array's data are cut off or too long for {expected}.")
    flat = np.frombuffer(array.data, dtype, count=count, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _can_be(shape: tuple[int, ...]) -> bool:
    """Return whether numpy could make an array of this shape, given enough memory."""
    entries = math.prod(max(length, 1) for length in shape)  # an axis of 0 hides no other
    return min(shape, default=0) >= 0 and len(shape) <= _MOST_AXES and entries < _MOST_ENTRIES


def _flat(data: bytes, dtype: str) -> Array:
    return Array(dtype, (len(data),), PACKED_STYPE, data)


def _flat_dtype(layout: Layout, wire_dtype: str) -> str:
    if wire_dtype != "float32":
        return wire_dtype
    dtypes = {str(dtype) for dtype, _ in layout.values()}
    return dtypes.pop() if len(dtypes) == 1 else "mixed"


_DIGEST_LENGTH = 16


def digest_of(array: Array) -> str:
    """Return a digest that names an array: the beginning of its bytes' SHA-256, in hex."""
    return hashlib.sha256(array.data).hexdigest()[:_DIGEST_LENGTH]
