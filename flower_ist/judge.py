"""Judge one client's reply on its own: take it, or refuse it with a reason.

A reply comes from a machine that nobody controls. Nothing in it may stop the server, make it
allocate memory, or bring a value that is not a finite number into the model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray

from flower_ist.clients import last_line
from flower_ist.wire import PACKED_KEY, Layout, WireError, decode, unpack

# More examples than this on one client are taken for a mistake: one reply would own every mean.
MAX_EXAMPLES = 10**9


class BadReply(ValueError):  # noqa: N818 - a reply that is refused is an expected event
    """A reply was refused; the text is the reason."""


def judge_reply(
    reply: Message, layout: Layout, weighted_by_key: str = "num-examples"
) -> tuple[dict[str, NDArray[Any]], float]:
    """Return a good reply's tensors (read-only views) and its number of examples.

    Args:
        reply: to a train message that sent tensors of this layout, packed or as ordinary arrays.
        layout: name -> dtype and shape of each tensor.
        weighted_by_key: the metric that holds the number of examples.

    Raises:
        BadReply: the reply is an error, or lacks something, or something in it is not as it must.
    """
    if reply.has_error():
        raise BadReply(f"the client failed: {last_line(reply.error.reason)}")
    if not reply.has_content():
        raise BadReply("the reply is empty")
    records = reply.content.array_records
    if len(records) != 1:
        raise BadReply(f"the reply has {len(records)} ArrayRecords instead of one")
    weight = _examples(list(reply.content.metric_records.values()), weighted_by_key)
    tensors = _tensors(next(iter(records.values())), layout)
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise BadReply(f"{name!r} holds values that are not finite numbers")
    return tensors, weight


def _tensors(record: ArrayRecord, layout: Layout) -> dict[str, NDArray[Any]]:
    arrays: dict[str, Array] = dict(record.items())
    try:
        if set(arrays) == {PACKED_KEY}:
            return unpack(arrays[PACKED_KEY], layout)
        if arrays.keys() != layout.keys():
            raise BadReply(f"its arrays are {sorted(arrays)[:8]} instead of {sorted(layout)[:8]}")
        return {name: decode(arrays[name], *expected) for name, expected in layout.items()}
    except WireError as err:
        text = str(err).rstrip(".")
        raise BadReply(text[0].lower() + text[1:]) from err


def _examples(records: list[MetricRecord], key: str) -> float:
    if len(records) != 1:
        raise BadReply(f"the reply has {len(records)} MetricRecords instead of one")
    value = records[0].get(key)
    if not isinstance(value, int | float):
        raise BadReply(f"its metrics lack the number {key!r}")
    if not (math.isfinite(value) and 0 < value <= MAX_EXAMPLES):
        raise BadReply(f"{key!r} is {value}, not between 0 and {MAX_EXAMPLES}")
    return float(value)
