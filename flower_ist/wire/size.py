"""The size of a message on the wire, measured on what Flower actually sends."""

from __future__ import annotations

from flwr.app import Array, Error, Message, Metadata

from flower_ist.wire._flwr import (
    get_all_nested_objects,
    inflate_object_from_contents,
    no_object_id_recompute,
    set_message_id,
    with_metadata,
)
from flower_ist.wire.layout import WireError
from flower_ist.wire.protocol import NUMPY_STYPE
from flower_ist.wire.records import arrays_in

_ITEM_BYTES = {
    kind + bits: int(bits) // 8
    for kind, widths in {"float": "16 32 64", "int": "8 16 32 64", "uint": "8 16 32 64"}.items()
    for bits in widths.split()
} | {"bool": 1}
_SUPERLINK_NODE_ID = 1
_WIDEST_ID = 2**64 - 1
_MESSAGE_ID_LENGTH = 64


class RefusedReply(Message):
    """An error in the place of a reply, addressed as the question was.

    Attributes:
        received: bytes of the reply on the wire.
    """

    def __init__(self, error: Error, asked: Message, received: int) -> None:
        super().__init__(error, reply_to=asked)
        self.received = received


def extent(message: Message) -> tuple[int, int]:
    """Return how many entries a message has and about how many bytes, without serializing it.

    Entries are arrays, metrics and configs; a list is one. Bytes lack a few dozen for each entry.
    """
    if message.has_error():
        return 1, len(message.error.reason or "")
    entries = size = 0
    if message.has_content():
        for name, record in message.content.items():
            size += len(name)
            for key, value in record.items():
                entries += 1
                size += len(key)
                if isinstance(value, Array):
                    size += len(value.data)
                elif isinstance(value, str | bytes):
                    size += len(value)
                elif isinstance(value, list):
                    size += sum(len(v) if isinstance(v, str | bytes) else 8 for v in value)
                else:
                    size += 8
    return entries, size


def wire_bytes(message: Message) -> int:
    """Return the number of bytes of a message on the wire: every nested object, serialized.

    Run, node and task ids are random and take 1 to 10 bytes each in Flower's encoding. They are
    counted at their longest, and message ids at a deployment's 64 characters, so that the same run
    gives the same number anywhere. This adds fewer than 60 bytes to a message. For an error in the
    place of a reply it is what the reply had.
    """
    if isinstance(message, RefusedReply):
        return message.received
    counted = with_metadata(message, _widest_ids(message.metadata))
    with no_object_id_recompute():
        return sum(len(o.deflate()) for o in get_all_nested_objects(counted).values())


def payload_bytes(message: Message) -> int:
    """Return the number of bytes of a message's tensors alone, without names, headers, metrics."""
    if not message.has_content():
        return 0
    return sum(
        _tensor_bytes(array)
        for record in arrays_in(message.content).values()
        for array in record.values()
    )


def round_trip(message: Message) -> Message:
    """Serialize a message as Flower does and read it back, as crossing a network would."""
    with no_object_id_recompute():
        objects = {key: o.deflate() for key, o in get_all_nested_objects(message).items()}
        copy = inflate_object_from_contents(message.object_id, objects)
    if not isinstance(copy, Message):  # pragma: no cover - flwr returns what went in
        raise WireError(f"A message came back as {type(copy).__name__}.")
    set_message_id(copy, message.metadata.message_id)
    return copy


def _tensor_bytes(array: Array) -> int:
    # A reply may claim any dtype and shape: none of it is parsed, and the product stays small.
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
