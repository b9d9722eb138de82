"""Clients that lie: what an honest ClientApp answers, changed by hand before it is sent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord

from flower_ist.statistics.sums import Statistics, statistics_layout
from flower_ist.wire.layout import layout_of
from flower_ist.wire.packing import SQUEEZED, pack, unpack
from flower_ist.wire.protocol import CLASS_SUMS_AND_GRAM, CLIENT_NAME_KEY, COMPACT, PACKED_KEY
from tests.fakes.tiny import partition_of

Lie = Callable[[Message, Message], Message]
App = Callable[[Message, Context], Message]


def lying(app: App, lies: dict[int, Lie]) -> App:
    """Return a ClientApp whose partitions' replies go through ``lies``: (question, reply)."""

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        lie = lies.get(partition_of(context))
        return reply if lie is None or reply.has_error() else lie(message, reply)

    return answer


def then(*lies: Lie) -> Lie:
    """Return one lie after the other."""

    def all_of_them(message: Message, reply: Message) -> Message:
        for lie in lies:
            reply = lie(message, reply)
        return reply

    return all_of_them


def calls_itself(name: str) -> Lie:
    """Tell another name."""
    return tells(**{CLIENT_NAME_KEY: name})


def tells(**facts: object) -> Lie:
    """Tell these facts; underscores are hyphens."""
    told = {key.replace("_", "-"): value for key, value in facts.items()}

    def lie(_: Message, reply: Message) -> Message:
        if reply.metadata.message_type == "query":
            (key,) = reply.content
            reply.content[key] = ConfigRecord({**reply.content[key], **told})  # type: ignore[dict-item]
        return reply

    return lie


def reports(kind: str, **metrics: object) -> Lie:
    """Report these metrics in replies to messages of a kind; None: not at all."""

    def lie(_: Message, reply: Message) -> Message:
        if reply.metadata.message_type == kind and "metrics" in reply.content:
            told = {
                **reply.content["metrics"],
                **{k.replace("_", "-"): v for k, v in metrics.items()},
            }
            kept = {key: value for key, value in told.items() if value is not None}
            reply.content["metrics"] = MetricRecord(kept)  # type: ignore[arg-type]
        return reply

    return lie


def nonsense(message: Message, reply: Message) -> Message:
    """Train to NaN."""
    if message.metadata.message_type != "train" or "arrays" not in message.content:
        return reply
    (record,) = reply.content.array_records.values()
    for key, array in record.items():
        spoilt = np.full(array.shape, np.nan, array.dtype) if key != PACKED_KEY else None
        if spoilt is None:
            array.data = b"\xff" * len(array.data)
        else:
            record[key] = type(array)(spoilt)
    return reply


def sums(
    change: Callable[[Statistics], Statistics], *, classes: int, dim: int, dtype: str = "compact"
) -> Lie:
    """Change the statistics, of this dtype on the wire, that the client answers with."""

    def lie(message: Message, reply: Message) -> Message:
        config = message.content.config_records.get("config", ConfigRecord())
        if "statistics" not in config:
            return reply
        (record,) = reply.content.array_records.values()
        layout = statistics_layout(classes, dim, CLASS_SUMS_AND_GRAM, dtype)
        packed_as = SQUEEZED if dtype == COMPACT else "float32"
        told = change(Statistics.from_tensors(unpack(record[PACKED_KEY], layout, packed_as)))
        tensors = told.to_tensors(dtype)
        array = pack(tensors, layout_of(tensors), packed_as)
        reply.content["arrays"] = ArrayRecord({PACKED_KEY: array})
        metrics = {**reply.content["metrics"], "num-examples": int(told.counts.sum())}
        reply.content["metrics"] = MetricRecord(metrics)  # type: ignore[arg-type]
        return reply

    return lie


def times(factor: int) -> Callable[[Statistics], Statistics]:
    """Count every token so many times."""
    return lambda told: Statistics(
        told.counts * factor,
        told.sums * factor,
        None if told.gram is None else told.gram * factor,
    )


def larger(factor: float) -> Callable[[Statistics], Statistics]:
    """Make every token so many times as large."""
    return lambda told: Statistics(
        told.counts, told.sums * factor, None if told.gram is None else told.gram * factor**2
    )


def flipped(told: Statistics) -> Statistics:
    """Call every class by the name of the next one."""
    return Statistics(np.roll(told.counts, 1), np.roll(told.sums, 1, axis=0), told.gram)


def backward(examples: int) -> Lie:
    """Send a float32 update with the opposite sign, and claim so many examples for it."""

    def lie(message: Message, reply: Message) -> Message:
        if message.metadata.message_type != "train" or "arrays" not in message.content:
            return reply
        arrays = message.content.array_records["arrays"]
        sent = np.concatenate([array.numpy().ravel() for array in arrays.values()])
        (record,) = reply.content.array_records.values()
        packed = record[PACKED_KEY]
        turned = 2 * sent - np.frombuffer(packed.data, "<f4")
        data = turned.astype("<f4").tobytes()
        record[PACKED_KEY] = Array(packed.dtype, packed.shape, packed.stype, data)
        return reports("train", num_examples=examples)(message, reply)

    return lie
