"""One flat packed array per message, and wire dtypes.

Flower sends each array as a separate object (about 450 bytes and two requests each), so a slice
is sent as ONE flat array: its tensors' bytes one after another. Where each tensor begins follows
from a short layout in the message's ConfigRecord. No neuron index is sent (``compact`` names a
slice's neurons by a bit each): a client sees a small dense net.

With a :class:`Codec` beside the layout the tensors are quantized (:mod:`flower_ist.wire.quantize`),
and the client replies with the change of its tensors instead of the tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Array
from numpy.typing import NDArray

from flower_ist.blocks import Blocked, Blocks, blocks_of
from flower_ist.wire.compact import Known, decode_compact, encode_compact
from flower_ist.wire.layout import CodecError, Layout, WireError, check_layout
from flower_ist.wire.protocol import COMPACT, PACKED_STYPE
from flower_ist.wire.quantize import (
    at_most,
    check_wire_dtype,
    decode_blocks,
    encode_blocks,
    encoded_bytes,
)
from flower_ist.wire.quantize import decode as dequantize
from flower_ist.wire.squeeze import squeezed, unsqueezed

# In the place of a wire dtype: tensors as they are, compressed without loss.
SQUEEZED = "squeezed"

_COMPRESSED = (SQUEEZED, COMPACT)
_DIGEST_LENGTH = 16


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
        except (ValueError, WireError) as err:
            raise WireError(f"The message's packed codec {text[:40]!r} cannot be read.") from err


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
        except CodecError as err:
            raise WireError(f"A tensor {err}, so it cannot be sent as {COMPACT}.") from err
    return pack_blocks(lambda name: blocks_of(tensors[name]), layout, wire_dtype, noise)


def pack_blocks(
    blocks: Callable[[str], Blocks],
    layout: Layout,
    wire_dtype: str = "float32",
    noise: np.random.Philox | None = None,
) -> Array:
    """Pack tensors that come in blocks, as :func:`pack` does; compressed they cannot be.

    Args:
        blocks: returns those of a tensor of the layout.
        layout: as in :func:`pack`.
        wire_dtype: as in :func:`pack`.
        noise: as in :func:`pack`.

    Raises:
        WireError: as :func:`pack` does.
    """
    data = np.empty(_size(layout, wire_dtype), np.uint8)
    for name, (here, dtype, shape) in _places(data, layout, wire_dtype).items():
        try:
            encode_blocks(blocks(name), dtype, shape, wire_dtype, here, noise)
        except CodecError as err:
            raise WireError(
                f"{name!r} {err}, so it cannot be sent as {wire_dtype}: use a smaller learning "
                "rate, or the wire dtype float32."
            ) from err
    return _flat(data.tobytes(), _flat_dtype(layout, wire_dtype))


def unpack(
    array: Array, layout: Layout, wire_dtype: str = "float32", known: Known | None = None
) -> dict[str, NDArray[Any]]:
    """Return the tensors of a packed array; in ``float32`` as read-only views of its bytes.

    What is allocated depends on the layout alone, not on what the array claims. Values may be
    infinite or not a number.

    Raises:
        WireError: the array is of a different kind or dtype, or does not hold exactly the layout's
            bytes.
    """
    if wire_dtype not in _COMPRESSED:
        places = _places_in(array, layout, wire_dtype)
        return {name: dequantize(*place, wire_dtype) for name, place in places.items()}
    _check_kind(array, layout, wire_dtype)
    try:
        if wire_dtype == SQUEEZED:
            tensors = unsqueezed(array.data, layout)
        else:
            tensors = decode_compact(array.data, layout, known or Known())
    except CodecError as err:
        raise WireError(f"The array {err}.") from err
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return tensors


def unpackers(
    array: Array, layout: Layout, wire_dtype: str, known: Known | None = None
) -> dict[str, Blocked]:
    """Return what :func:`unpack` does, in blocks that are unpacked whenever they are read.

    What is compressed is unpacked at once.

    Raises:
        WireError: as :func:`unpack` does.
    """
    if wire_dtype in _COMPRESSED:
        tensors = unpack(array, layout, wire_dtype, known)
        return {name: Blocked(partial(blocks_of, tensor)) for name, tensor in tensors.items()}
    return {
        name: Blocked(partial(decode_blocks, *place, wire_dtype), at_most(*place, wire_dtype))
        for name, place in _places_in(array, layout, wire_dtype).items()
    }


def digest_of(array: Array) -> str:
    """Return a digest that names an array: the beginning of its bytes' SHA-256, in hex."""
    return hashlib.sha256(array.data).hexdigest()[:_DIGEST_LENGTH]


def _size(layout: Layout, wire_dtype: str) -> int:
    """Return the size of a layout's tensors in bytes."""
    return sum(encoded_bytes(dtype, shape, wire_dtype) for dtype, shape in layout.values())


def _places_in(
    array: Array, layout: Layout, wire_dtype: str
) -> dict[str, tuple[NDArray[np.uint8], np.dtype[Any], tuple[int, ...]]]:
    """Return the bytes, dtype and shape of each tensor in an array, after checking the array."""
    _check_kind(array, layout, wire_dtype)
    expected = _size(layout, wire_dtype)
    if len(array.data) != expected:
        raise WireError(f"The array has {len(array.data)} bytes instead of {expected}.")
    return _places(np.frombuffer(array.data, np.uint8), layout, wire_dtype)


def _check_kind(array: Array, layout: Layout, wire_dtype: str) -> None:
    """Refuse an array that is of a different kind or dtype."""
    if array.stype != PACKED_STYPE:
        raise WireError(f"The array is of kind {array.stype!r} instead of {PACKED_STYPE!r}.")
    flat_dtype = _flat_dtype(layout, wire_dtype)
    if array.dtype != flat_dtype:
        raise WireError(f"The array's dtype is {array.dtype} instead of {flat_dtype}.")


def _places(
    data: NDArray[np.uint8], layout: Layout, wire_dtype: str
) -> dict[str, tuple[NDArray[np.uint8], np.dtype[Any], tuple[int, ...]]]:
    """Return each tensor's bytes, dtype and shape."""
    places, start = {}, 0
    for name, (dtype, shape) in layout.items():
        end = start + encoded_bytes(dtype, shape, wire_dtype)
        places[name] = data[start:end], dtype, shape
        start = end
    return places


def _flat(data: bytes, dtype: str) -> Array:
    return Array(dtype, (len(data),), PACKED_STYPE, data)


def _flat_dtype(layout: Layout, wire_dtype: str) -> str:
    if wire_dtype != "float32":
        return wire_dtype
    dtypes = {str(dtype) for dtype, _ in layout.values()}
    return dtypes.pop() if len(dtypes) == 1 else "mixed"
