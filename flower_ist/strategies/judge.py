"""Judge one client's reply on its own: take it, or refuse it with a reason.

A reply comes from a machine that nobody controls. Nothing in it may stop the server, make it
allocate memory, or bring a value into the model that is not a finite number of sensible size. What
no check of a single reply can see is a lie that looks plausible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict
from numpy.typing import NDArray

from flower_ist.blocks import largest
from flower_ist.errors import FlowerIstError
from flower_ist.grids.chain import category
from flower_ist.submodels.cut import Factor
from flower_ist.wire.layout import Layout, WireError
from flower_ist.wire.packing import unpack
from flower_ist.wire.protocol import MAX_EXAMPLES, PACKED_KEY, REFUSED_CODE
from flower_ist.wire.record_tensors import RecordTensors, record_of
from flower_ist.wire.records import arrays_in
from flower_ist.wire.reported import client_text, finite, last_line, metric_record

# Whole numbers in a model are counters, such as BatchNorm's batches, or indices that stay: one that
# moves further in a round is a lie, or a fault.
_FARTHEST = 10**6


class BadReply(FlowerIstError):  # noqa: N818 - a reply that is refused is an expected event
    """A reply was refused; the message is the reason, short and printable whatever was sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(client_text(reason))


class ClientFailed(BadReply):
    """The client reports that it failed: there is nothing to judge."""


@dataclass(frozen=True)
class Expected:
    """What a good reply holds.

    Attributes:
        layout: name -> dtype and shape of each tensor.
        arrayrecord_key: the ArrayRecord's name; if there is only one, any name will do.
        weighted_by_key: the metric that holds the number of examples.
        max_weight: largest magnitude of a weight on the model's own scale.
        factors: name -> what a slice's tensor was multiplied by
            (:meth:`flower_ist.submodels.cut.Cut.factors`); 1 for a tensor that is not named.
        sent: tensors of whole numbers as they were sent.
        max_examples: largest number of examples, e.g. what the client said it has.
        kind: of the message that the reply answers.
        packed_as: wire dtype of a packed array.
    """

    layout: Layout
    arrayrecord_key: str = "arrays"
    weighted_by_key: str = "num-examples"
    max_weight: float = math.inf
    factors: Mapping[str, Factor] = field(default_factory=dict)
    sent: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    max_examples: float = MAX_EXAMPLES
    kind: str = MessageType.TRAIN
    packed_as: str = "float32"


def judge_reply(reply: Message, expected: Expected) -> tuple[RecordTensors, float]:
    """Return a good reply's tensors (read-only views) and its number of examples.

    The tensors of a packed reply that the filter Packed restores are restored when they are read.

    Raises:
        ClientFailed: the reply is an error from the client or the SuperLink.
        BadReply: the reply lacks something, or something in it is not as expected, or it was
            refused on its way here (:data:`REFUSED_CODE`).
    """
    content = content_of(reply, expected.kind)
    record = _record(content, expected.arrayrecord_key)
    examples = examples_of(content, expected.weighted_by_key, expected.max_examples)
    tensors = _tensors(record, expected.layout, expected.packed_as)
    for name in tensors:
        try:
            _judge_tensor(name, tensors, expected)
        except WireError as err:
            raise BadReply(uncapitalized(str(err).rstrip("."))) from err
    return tensors, examples


def content_of(reply: Message, kind: str) -> RecordDict:
    """Return what a reply to a message of this kind holds.

    Raises:
        ClientFailed: it is an error from the client or the SuperLink.
        BadReply: it was refused on its way here, is empty, or answers another kind of message.
    """
    if reply.has_error():
        reason = last_line(reply.error.reason)
        if reply.error.code == REFUSED_CODE:
            raise BadReply(uncapitalized(reason))
        raise ClientFailed(f"the client failed: {reason}")
    if category(reply) != kind:
        raise BadReply(f"it answers {kind!r} but calls itself {category(reply)[:20]!r}")
    if not reply.has_content():
        raise BadReply("the reply is empty")
    return reply.content


def examples_of(content: RecordDict, key: str, most: float) -> float:
    """Return the number of examples in a reply's metrics.

    Raises:
        BadReply: there is none, or it is not between 1 and ``most``.
    """
    record = metric_record(content, key)
    value = None if record is None else record[key]
    if not isinstance(value, int | float):
        raise BadReply(f"its metrics lack the number {key!r}")
    number = finite(value)
    if number is None or not 1 <= number <= most:
        raise BadReply(f"{key!r} is {value}, not between 1 and {most:g}")
    return number


def _record(content: RecordDict, key: str) -> ArrayRecord:
    records = arrays_in(content)
    if key in records:
        return records[key]
    if len(records) != 1:
        raise BadReply(f"the reply has {len(records)} ArrayRecords and none is called {key!r}")
    return next(iter(records.values()))


def _tensors(record: ArrayRecord, layout: Layout, packed_as: str) -> RecordTensors:
    arrays: dict[str, Array] = dict(record.items())
    try:
        if set(arrays) == {PACKED_KEY}:
            arrays = dict(record_of(unpack(arrays[PACKED_KEY], layout, packed_as)).items())
    except WireError as err:
        raise BadReply(uncapitalized(str(err).rstrip("."))) from err
    if arrays.keys() != layout.keys():
        raise BadReply(f"its arrays are {sorted(arrays)[:8]} instead of {sorted(layout)[:8]}")
    return RecordTensors(arrays, layout)


def _judge_tensor(name: str, tensors: RecordTensors, expected: Expected) -> None:
    if name in expected.sent:
        # In float64 nothing wraps around.
        moved = np.subtract(tensors[name], expected.sent[name], dtype=np.float64)
        if (farthest := np.abs(moved).max(initial=0.0)) > _FARTHEST:
            raise BadReply(f"{name!r} holds a whole number that has moved by {farthest:.3g}")
    tensor = tensors.blocked(name)
    if expected.layout[name][0].kind != "f":
        return
    factor = expected.factors.get(name, 1.0)
    if math.isfinite(tensor.at_most) and tensor.at_most <= expected.max_weight * np.min(factor):
        return
    size = largest(tensors[name])  # NaN if there is one
    if not math.isfinite(size):
        raise BadReply(f"{name!r} holds values that are not finite numbers")
    size = size / factor if isinstance(factor, float) else largest(tensors[name] / factor)
    if size > expected.max_weight:
        raise BadReply(
            f"{name!r} holds a weight of {size:.3g}, above max_weight = {expected.max_weight:g}"
        )


def uncapitalized(sentence: str) -> str:
    """Return a sentence as it goes on after a colon."""
    return sentence[:1].lower() + sentence[1:]
