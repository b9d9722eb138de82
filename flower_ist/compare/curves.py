"""One run as a curve: accuracy against bytes, and the round that one would have stopped at.

Pure functions over a run log's lines. Test accuracy never decides anything here but whether a
target is reached: rounds are chosen by validation accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Point:
    """One evaluated round of a run.

    Attributes:
        server_round: from 1 on; in round 0 nothing has been trained.
        wire_bytes: of both directions and all message kinds, from the start to this round's end.
        accuracy: on the server's test examples, 0 to 1.
        validation: on its validation examples; None if the log has none.
    """

    server_round: int
    wire_bytes: int
    accuracy: float
    validation: float | None


ENSEMBLE = "ensemble_"
"""Prefix of the log's accuracies of the averaged logits of slices that are kept for good."""


def points(lines: Lines, prefix: str = "") -> list[Point]:
    """Return the rounds of a run that trained and were evaluated, in order.

    Args:
        lines: of a run log.
        prefix: of the fields to read: empty for the merged model, or :data:`ENSEMBLE`.
    """
    accuracy = f"{prefix}accuracy"
    totals = accumulate(line["wire_bytes_down"] + line["wire_bytes_up"] for line in lines)
    return [
        Point(line["round"], total, line[accuracy], line.get(f"{prefix}validation_accuracy"))
        for line, total in zip(lines, totals, strict=True)
        if line["round"] > 0 and line.get(accuracy) is not None
    ]


def selected(curve: Sequence[Point], budget: float | None = None) -> Point | None:
    """Return the round with the best validation accuracy that a budget allows.

    The first of equals is taken, for it needs the fewest bytes. Without validation accuracies it is
    the last round: choosing on the test examples is no option.

    Args:
        curve: as :func:`points` gives it.
        budget: bytes; None for no limit.

    Returns:
        None if not even one round fits.
    """
    allowed = [point for point in curve if budget is None or point.wire_bytes <= budget]
    if not allowed:
        return None
    if any(point.validation is None for point in allowed):
        return allowed[-1]
    return max(allowed, key=lambda point: point.validation or 0.0)


def bytes_to(curve: Sequence[Point], target: float) -> int | None:
    """Return the bytes up to the first round whose test accuracy reaches a target, if any does."""
    return next((point.wire_bytes for point in curve if point.accuracy >= target), None)


def bytes_by_client(lines: Lines) -> dict[str, int]:
    """Return client name -> wire bytes of both directions over the whole run."""
    totals: dict[str, int] = {}
    for line in lines:
        for name, traffic in line["clients"].items():
            both = traffic["wire_bytes_down"] + traffic["wire_bytes_up"]
            totals[name] = totals.get(name, 0) + both
    return totals


def training_rounds(lines: Lines) -> list[Mapping[str, Any]]:
    """Return the rounds in which clients were asked to train (a closed form has one)."""
    return [line for line in lines if line["round"] and line["clients_selected"]]


def best_validation(lines: Lines) -> float | None:
    """Return the best validation accuracy of a run, by which settings are chosen."""
    point = selected(points(lines))
    return None if point is None else point.validation
