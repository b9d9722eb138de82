"""Weighted means of what clients report, where the reports cannot be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from flwr.app import Message, MetricRecord, RecordDict

from flower_ist.wire.protocol import CLIENT_NAME_KEY, MAX_NAME_LENGTH, SUPERLINK_ERRORS
from flower_ist.wire.records import configs_in, metrics_in

# Limits on the metrics kept per client: they are logged every round.
MAX_METRICS = 64
MAX_KEY_LENGTH = 80


def metric_record(content: RecordDict, key: str) -> MetricRecord | None:
    """Return the first MetricRecord that holds a key, if there is one."""
    return next((r for r in metrics_in(content).values() if key in r), None)


def mean_metrics(contents: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Average the clients' metrics, weighted by examples.

    Unlike Flower's own function this never fails and never returns a value that is not finite: a
    metric counts where it is one finite number, and clients that lack it are left out of its mean.
    A client's first 64 metrics with printable names of at most 80 characters are used.

    Args:
        contents: of replies that were judged valid.
        weighted_by_key: the metric that holds the weights; it is not averaged itself.
    """
    reported: dict[str, list[tuple[float, float]]] = {}
    for content in contents:
        record: Mapping[str, Any] = metric_record(content, weighted_by_key) or {}
        weight = finite(record.get(weighted_by_key)) or 0.0
        for key, number in finite_metrics(content, weighted_by_key).items():
            if weight > 0:
                reported.setdefault(key, []).append((weight, number))
    return MetricRecord({key: weighted_mean(pairs) for key, pairs in reported.items()})


def finite_metrics(content: RecordDict, weighted_by_key: str) -> dict[str, float]:
    """Return the metrics beside the weights that are one finite number under a readable name."""
    record: Mapping[str, Any] = metric_record(content, weighted_by_key) or {}
    found = {}
    for key, value in islice(record.items(), MAX_METRICS):
        number = finite(value)
        readable = key.isprintable() and len(key) <= MAX_KEY_LENGTH
        if key != weighted_by_key and readable and number is not None:
            found[key] = number
    return found


def finite(value: Any) -> float | None:
    """Return a value as float if it is one finite number, else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int may have any number of digits
        return None
    return number if math.isfinite(number) else None


def weighted_mean(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the mean of (weight, value) pairs; it lies between the smallest and largest value."""
    # Shares of the largest weight cannot overflow, nor can shares of their sum times a value.
    largest = max(weight for weight, _ in pairs)
    total = sum(weight / largest for weight, _ in pairs)
    mean = sum(weight / largest / total * value for weight, value in pairs)
    values = [value for _, value in pairs]
    return min(max(mean, min(values)), max(values))


def is_name(name: object) -> bool:
    """Return whether something can be a client's name: printable and short."""
    return isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME_LENGTH


def client_name(reply: Message) -> str | None:
    """Return the client name in a query reply, or None."""
    if not reply.has_content():
        return None
    for config in configs_in(reply.content).values():
        name = config.get(CLIENT_NAME_KEY)
        if is_name(name):
            return str(name)
    return None


def is_superlink_error(reply: Message) -> bool:
    """Return whether a reply is the SuperLink's own: the node is gone, or a message has expired."""
    return reply.has_error() and reply.error.code in SUPERLINK_ERRORS


def client_text(text: str, limit: int = 300) -> str:
    """Return a string that a client wrote in a form fit for a log: printable and short."""
    short = text[:limit] + ("..." if len(text) > limit else "")
    return "".join(character if character.isprintable() else " " for character in short)


def last_line(reason: str | None) -> str:
    """Return the last line of a client's traceback: the one that names the error."""
    # The end of a long string is enough to find its last line.
    lines = [line.strip() for line in (reason or "")[-10_000:].splitlines() if line.strip(" '>")]
    return client_text(lines[-1] if lines else "no reason given").rstrip(".")
