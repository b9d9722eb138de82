"""What a message takes on the wire, and the client mod that unpacks and packs its tensors.

The format of packed arrays is in :mod:`flower_ist.packing`. :func:`packed_mod` undoes it on the
client, so that a training function works on an ordinary ArrayRecord.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, Metadata, RecordDict
from numpy.typing import NDArray

from flower_ist._flwr import (
    get_all_nested_objects,
    inflate_object_from_contents,
    no_object_id_recompute,
    set_message_id,
    with_metadata,
)
from flower_ist.packing import (
    CODEC_KEY,
    LAYOUT_KEY,
    NUMPY_STYPE,
    PACKED_KEY,
    PACKED_STYPE,
    Codec,
    Layout,
    WireError,
    check_layout,
    decode,
    layout_bytes,
    layout_from_text,
    layout_of,
    layout_to_text,
    pack,
    unpack,
)
from flower_ist.quantise import noise_of

__all__ = [
    "LAYOUT_KEY",
    "NUMPY_STYPE",
    "PACKED_KEY",
    "PACKED_STYPE",
    "Layout",
    "WireError",
    "decode",
    "layout_bytes",
    "layout_from_text",
    "layout_of",
    "layout_to_text",
    "pack",
    "packed_mod",
    "payload_bytes",
    "round_trip",
    "unpack",
    "wire_bytes",
]

_ITEM_BYTES = {
    kind + bits: int(bits) // 8
    for kind, widths in {"float": "16 32 64", "int": "8 16 32 64", "uint": "8 16 32 64"}.items()
    for bits in widths.split()
} | {"bool": 1}
_SUPERLINK_NODE_ID = 1
_WIDEST_ID = 2**64 - 1
_MESSAGE_ID_LENGTH = 64


def packed_mod(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Unpack a packed message before the ClientApp sees it, and pack the reply's arrays.

    Use it as ``ClientApp(mods=[packed_mod])``. Messages that are not packed pass untouched, so the
    same ClientApp also serves FedAvg and any other strategy. A message with a codec is read back to
    its own dtypes, and the reply then brings the change of each floating-point tensor instead of
    the tensor, rounded stochastically to the codec's dtype.

    Raises:
        WireError: the message or the reply's arrays are not of the layout, or the reply's cannot
            be quantised. Flower makes an error reply of it.
    """
    if not message.has_content():
        return call_next(message, context)
    layout, codec = _take_format(message.content)
    if layout is None:
        return call_next(message, context)

    received = {
        name: unpack(record[PACKED_KEY], layout, codec.down if codec else "float32")
        for name, record in message.content.array_records.items()
        if PACKED_KEY in record
    }
    if not received:
        return call_next(message, context)
    for name, tensors in received.items():
        message.content[name] = ArrayRecord({n: Array(t) for n, t in tensors.items()})
    reply = call_next(message, context)
    if reply.has_content():
        for name, record in reply.content.array_records.items():
            # Other records that a ClientApp adds go as they are.
            if name in received or len(reply.content.array_records) == 1:
                trained = {n: array.numpy() for n, array in record.items()}
                start = received[name] if name in received else next(iter(received.values()))
                reply.content[name] = ArrayRecord(
                    {PACKED_KEY: _pack(trained, start, layout, codec)}
                )
    return reply


def _take_format(content: RecordDict) -> tuple[Layout | None, Codec | None]:
    """Take the layout and the codec out of a message, which the ClientApp need not see."""
    for config in content.config_records.values():
        layout, codec = config.pop(LAYOUT_KEY, None), config.pop(CODEC_KEY, None)
        if isinstance(layout, str):
            return (
                layout_from_text(layout),
                Codec.from_text(codec) if isinstance(codec, str) else None,
            )
    return None, None


def _pack(
    trained: Mapping[str, NDArray[Any]],
    received: Mapping[str, NDArray[Any]],
    layout: Layout,
    codec: Codec | None,
) -> Array:
    """Pack trained tensors as they are, or their changes if there is a codec."""
    if codec is None:
        return pack(trained, layout)
    check_layout(trained, layout)
    with np.errstate(over="ignore", invalid="ignore"):
        changes = {
            name: tensor - received[name] if tensor.dtype.kind == "f" else tensor
            for name, tensor in trained.items()
        }
    return pack(changes, layout, codec.up, noise_of(codec.seed))


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
