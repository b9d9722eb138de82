"""The client mod that unpacks a message's tensors and packs those of the reply.

Packed arrays are those of :mod:`flower_ist.wire.packing`. :func:`packed_mod` unpacks them on the
client, so that a training function works on an ordinary ArrayRecord.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from numpy.typing import NDArray

from flower_ist.wire.compact import Known
from flower_ist.wire.layout import Layout, WireError, check_layout, layout_from_text
from flower_ist.wire.packing import Codec, pack, unpack
from flower_ist.wire.protocol import (
    CANNOT_START,
    CODEC_KEY,
    COMPACT,
    LAYOUT_KEY,
    PACKED_KEY,
    START_KEY,
)
from flower_ist.wire.quantize import noise_of
from flower_ist.wire.record_tensors import record_of, tensors_of
from flower_ist.wire.records import arrays_in, configs_in

# What a client knows of a message's tensors besides them (flower_ist.wire.compact).
KnownOf = Callable[[Message, Context, Layout, ConfigRecord], Known]
Next = Callable[[Message, Context], Message]


def packed_mod(
    message: Message, context: Context, call_next: Next, known_of: KnownOf | None = None
) -> Message:
    """Unpack a packed message before the ClientApp sees it, and pack the reply's arrays.

    Use it as ``ClientApp(mods=[packed_mod])``. Messages that are not packed pass through unchanged,
    so the same ClientApp also serves FedAvg and any other strategy. A message with a codec is
    decoded to the tensors' own dtypes, and the reply then holds the change of each floating-point
    tensor instead of the tensor, rounded to the codec's dtype.

    A client that can make initial weights from a seed, or holds a token prior, says what it knows
    with ``functools.partial(packed_mod, known_of=...)``.

    Raises:
        WireError: the message or the reply's arrays do not match the layout, or the reply's cannot
            be quantized, or the message holds changes of weights that this client does not know.
            Flower turns this into an error reply.
    """
    if not message.has_content():
        return call_next(message, context)
    layout, codec, config = _take_format(message.content)
    if layout is None:
        return call_next(message, context)
    known = Known()
    if codec is not None and COMPACT in (codec.down, codec.up):
        if known_of is not None:
            known = known_of(message, context, layout, config)
        elif START_KEY in config:
            raise WireError(f"{CANNOT_START}: its ClientApp's mod has no 'known_of'.")
    received = {
        name: unpack(record[PACKED_KEY], layout, codec.down if codec else "float32", known)
        for name, record in arrays_in(message.content).items()
        if PACKED_KEY in record
    }
    if not received:
        return call_next(message, context)
    for name, tensors in received.items():
        message.content[name] = record_of(tensors)
    reply = call_next(message, context)
    if reply.has_content():
        for name, record in arrays_in(reply.content).items():
            # Other records that a ClientApp adds are sent unchanged.
            if name in received or len(arrays_in(reply.content)) == 1:
                trained = tensors_of(record)
                start = received[name] if name in received else next(iter(received.values()))
                reply.content[name] = ArrayRecord(
                    {PACKED_KEY: _pack(trained, start, layout, codec, known)}
                )
    return reply


def _take_format(content: RecordDict) -> tuple[Layout | None, Codec | None, ConfigRecord]:
    """Remove the layout and the codec from a message, as the ClientApp need not see them.

    The config that held them comes third.
    """
    for config in configs_in(content).values():
        layout, codec = config.pop(LAYOUT_KEY, None), config.pop(CODEC_KEY, None)
        if isinstance(layout, str):
            return (
                layout_from_text(layout),
                Codec.from_text(codec) if isinstance(codec, str) else None,
                config,
            )
    return None, None, ConfigRecord()


def _pack(
    trained: Mapping[str, NDArray[Any]],
    received: Mapping[str, NDArray[Any]],
    layout: Layout,
    codec: Codec | None,
    known: Known,
) -> Array:
    """Pack the trained tensors, or their changes if there is a codec."""
    if codec is None:
        return pack(trained, layout)
    check_layout(trained, layout)
    with np.errstate(over="ignore", invalid="ignore"):
        changes = {
            name: tensor - received[name] if tensor.dtype.kind == "f" else tensor
            for name, tensor in trained.items()
        }
    return pack(changes, layout, codec.up, noise_of(codec.seed), known.of_reply())
