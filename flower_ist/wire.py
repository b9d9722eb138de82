"""Tensors on the wire: one flat packed array per message, and the real size of a message.

Flower sends an array as an object of its own (about 450 bytes and two requests each), so a slice
travels as ONE flat array: its tensors' bytes one after the other. Where each tensor begins follows
from a short layout in the message's ConfigRecord. No neuron index is ever sent: a client sees a
small dense net. :func:`packed_mod` unpacks and packs on the client, so that a training function
works on an ordinary ArrayRecord.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, Metadata
from numpy.typing import NDArray

from flower_ist._flwr import (
    get_all_nested_objects,
    inflate_object_from_contents,
    no_object_id_recompute,
    set_message_id,
    with_metadata,
)

PACKED_STYPE = "flower-ist.flat.1"
PACKED_KEY = "packed"
LAYOUT_KEY = "packed-layout"
NUMPY_STYPE = "numpy.ndarray"

# name of each tensor -> its dtype and shape, in the order in which the tensors are packed
Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]

_ITEM_BYTES = {
    kind + bits: int(bits) // 8
    for kind, widths in {"float": "16 32 64", "int": "8 16 32 64", "uint": "8 16 32 64"}.items()
    for bits in widths.split()
} | {"bool": 1}
_SUPERLINK_NODE_ID = 1
_WIDEST_ID = 2**64 - 1
_MESSAGE_ID_LENGTH = 64


class WireError(ValueError):
    """An array on the wire does not hold what it should."""


def layout_of(tensors: Mapping[str, NDArray[Any]]) -> Layout:
    """Return the layout of some tensors in their own order."""
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
        WireError: the text is not a layout of plain numbers.
    """
    try:
        layout = {
            str(name): (np.dtype(dtype), tuple(int(length) for length in shape))
            for name, dtype, shape in json.loads(text)
        }
    except (ValueError, TypeError, OverflowError, SyntaxError) as err:
        raise WireError(f"The message's packed layout cannot be read: {err}.") from err
    for name, (dtype, shape) in layout.items():
        if dtype.kind not in "fiub" or any(length < 0 for length in shape):
            raise WireError(f"The packed layout gives {name!r} as {dtype}{list(shape)}.")
    return layout


def pack(tensors: Mapping[str, NDArray[Any]], layout: Layout) -> Array:
    """Pack tensors into one flat Flower Array: their little-endian bytes in the layout's order.

    Raises:
        WireError: a tensor is missing, left over, or of another dtype or shape than the layout's.
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
    parts = [
        np.ascontiguousarray(tensors[name], dtype=dtype.newbyteorder("<")).reshape(-1).data
        for name, (dtype, _) in layout.items()
    ]
    data = b"".join(parts)
    return Array(_flat_dtype(layout), (len(data),), PACKED_STYPE, data)


def unpack(array: Array, layout: Layout) -> dict[str, NDArray[Any]]:
    """Return the tensors of a packed array as read-only views; nothing is copied.

    Raises:
        WireError: another kind of array, another dtype, or not exactly the layout's bytes.
    """
    if array.stype != PACKED_STYPE:
        raise WireError(f"The array is of kind {array.stype!r} instead of {PACKED_STYPE!r}.")
    if array.dtype != _flat_dtype(layout):
        raise WireError(f"The array's dtype is {array.dtype} instead of {_flat_dtype(layout)}.")
    expected = layout_bytes(layout)
    if len(array.data) != expected:
        raise WireError(f"The array has {len(array.data)} bytes instead of {expected}.")
    tensors: dict[str, NDArray[Any]] = {}
    offset = 0
    for name, (dtype, shape) in layout.items():
        count = math.prod(shape)
        flat = np.frombuffer(array.data, dtype.newbyteorder("<"), count=count, offset=offset)
        tensors[name] = flat.reshape(shape)
        offset += flat.nbytes
    return tensors


def decode(array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an ordinary Flower Array's values as a read-only view, after checking every claim.

    ``Array.numpy()`` allocates whatever an array's inner header asks for; this reads the header
    first and allocates nothing.

    Raises:
        WireError: the array, or the .npy data in it, is not of this dtype and shape.
    """
    expected = f"{dtype}{list(shape)}"
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
    except Exception as err:  # numpy's header parser lets errors of many kinds through
        raise WireError("The array's data are not in .npy form.") from err
    inner_shape, fortran_order, inner_dtype = inner
    if (inner_dtype, inner_shape) != (dtype, shape):
        raise WireError(f"The array's data hold {inner_dtype}{list(inner_shape)}, not {expected}.")
    count = math.prod(shape)
    if len(array.data) - stream.tell() != count * dtype.itemsize:
        raise WireError(f"The array's data are cut off or too long for {expected}.")
    flat = np.frombuffer(array.data, dtype, count=count, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran_order else "C")


def packed_mod(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Unpack a packed message before the ClientApp sees it, and pack the reply's arrays.

    Use it as ``ClientApp(mods=[packed_mod])``. Messages that are not packed pass untouched, so the
    same ClientApp also serves FedAvg and any other strategy.
    """
    if not message.has_content():
        return call_next(message, context)
    for config in message.content.config_records.values():
        text = config.pop(LAYOUT_KEY, None)
        if isinstance(text, str):
            layout = layout_from_text(text)
            break
    else:
        return call_next(message, context)

    packed = {n: r for n, r in message.content.array_records.items() if PACKED_KEY in r}
    for name, record in packed.items():
        tensors = unpack(record[PACKED_KEY], layout)
        message.content[name] = ArrayRecord({n: Array(t) for n, t in tensors.items()})
    reply = call_next(message, context)
    if reply.has_content():
        for name, record in reply.content.array_records.items():
            # Other records that a ClientApp adds go as they are.
            if name in packed or len(reply.content.array_records) == 1:
                arrays = {n: array.numpy() for n, array in record.items()}
                reply.content[name] = ArrayRecord({PACKED_KEY: pack(arrays, layout)})
    return reply


def wire_bytes(message: Message) -> int:
    """Return the bytes that a message takes on the wire: every nested object, serialised.

    Run, node and task ids are random and take 1 to 10 bytes each in Flower's encoding; they are
    counted at their widest, and message ids at a deployment's 64 characters, so that the same run
    gives the same figure anywhere. This adds fewer than 60 bytes to a message.
    """
    counted = with_metadata(message, _widest_ids(message.metadata))
    with no_object_id_recompute():
        return sum(len(o.deflate()) for o in get_all_nested_objects(counted).values())


def payload_bytes(message: Message) -> int:
    """Return the bytes of a message's tensors alone, without names, headers and metrics."""
    if not message.has_content():
        return 0
    return sum(
        _tensor_bytes(array)
        for record in message.content.array_records.values()
        for array in record.values()
    )


def round_trip(message: Message) -> Message:
    """Serialise a message as Flower does and read it back, as crossing a network would."""
    with no_object_id_recompute():
        objects = {key: o.deflate() for key, o in get_all_nested_objects(message).items()}
        copy = inflate_object_from_contents(message.object_id, objects)
    if not isinstance(copy, Message):  # pragma: no cover - flwr returns what went in
        raise WireError(f"A message came back as {type(copy).__name__}.")
    set_message_id(copy, message.metadata.message_id)
    return copy


def layout_bytes(layout: Layout) -> int:
    """Return the payload of a layout in bytes."""
    return sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout.values())


def _flat_dtype(layout: Layout) -> str:
    dtypes = {str(dtype) for dtype, _ in layout.values()}
    return dtypes.pop() if len(dtypes) == 1 else "mixed"


def _tensor_bytes(array: Array) -> int:
    # A reply may claim any dtype and shape: nothing of it is parsed, and the product stays small.
    claimed = _ITEM_BYTES.get(array.dtype)
    if array.stype != NUMPY_STYPE or claimed is None:
        return len(array.data)
    for length in array.shape:
        claimed = min(claimed * max(0, length), len(array.data))
    return claimed


def _widest_ids(metadata: Metadata) -> Metadata:
    def widest(identifier: int) -> int:
        return identifier if identifier <= _SUPERLINK_NODE_ID else _WIDEST_ID

    return Metadata(
        run_id=_WIDEST_ID,
        message_id="",
        src_node_id=widest(metadata.src_node_id),
        dst_node_id=widest(metadata.dst_node_id),
        reply_to_message_id="0" * _MESSAGE_ID_LENGTH if metadata.reply_to_message_id else "",
        group_id=metadata.group_id,
        created_at=metadata.created_at,
        ttl=metadata.ttl,
        message_type=metadata.message_type,
        src_task_id=_WIDEST_ID,
        dst_task_id=_WIDEST_ID,
    )
