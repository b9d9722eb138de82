"""From run logs to the figures of a comparison: pure functions. docs/comparing.md defines each.

A run is a curve of accuracy against bytes. Rounds are chosen by validation accuracy; test accuracy
decides nothing but whether a target is reached.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from statistics import fmean, median
from typing import Any

from flower_ist.compare.plan import CENTRAL, FEDAVG

Lines = Sequence[Mapping[str, Any]]
"""The lines of a run log."""
BUDGET_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Budgets at which accuracies are compared, as shares of the reference's bytes."""
TARGET_MARGIN = 0.005
# Prefix of the log's accuracies of the averaged logits of slices that stay the same.
_ENSEMBLE = "ensemble_"


@dataclass(frozen=True)
class Point:
    """One evaluated round of a run; in round 0 nothing has been trained, so that it is none."""

    server_round: int
    wire_bytes: int  # of both directions and all message kinds, from the start to this round's end
    accuracy: float  # on the server's test examples, 0 to 1
    validation: float | None  # on its validation examples, if the log has any


@dataclass(frozen=True)
class Spread:
    """The median over the seeds and their range.

    A seed that never got there counts as infinite: ``high`` is None if one did not, ``median`` if
    half of them did not, and ``low`` if none did.
    """

    median: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CurvePoint:
    """A strategy at the end of a round: medians over the seeds, and the range of accuracies."""

    server_round: int
    wire_bytes: float
    accuracy: Spread  # the round's own
    chosen: float  # of the best round so far, by validation
    coverage: float


@dataclass(frozen=True)
class Result:
    """A strategy's figures, in the order of the CSV file. Bytes are wire bytes."""

    strategy: str  # its name in the plan
    settings: str  # what validation chose of the sweep; ``default`` without one
    federated: bool  # False for ``central``, whose bytes no federation would send
    seeds: int
    rounds: int
    best_accuracy: Spread  # on test examples, of the round with the best validation accuracy
    final_accuracy: Spread  # of the last round
    ensemble_accuracy: Spread  # as the best, of the averaged logits of slices that stay the same
    wire_bytes: Spread  # of a whole run, both directions
    bytes_to_target: Spread  # until the target accuracy is reached
    round_bytes_down: float  # mean over the rounds that trained
    round_bytes_up: float
    client_bytes: Spread  # of a whole run: the median client, the lowest and the highest
    accuracy_at: tuple[Spread, ...]  # for each budget, the best accuracy that it buys
    coverage: float  # mean share of the weights that a round trained
    clients_failed: int  # client-rounds that brought nothing, summed over the seeds
    curve: tuple[CurvePoint, ...]  # a point a round


@dataclass(frozen=True)
class FrontSpan:
    """A stretch of the Pareto front that one strategy holds, from its first to its last point."""

    strategy: str
    bytes_from: float
    bytes_to: float
    accuracy_from: float
    accuracy_to: float


@dataclass(frozen=True)
class Comparison:
    """All figures. ``reference`` is the strategy that target and budgets are taken from."""

    reference: str
    target_accuracy: float
    budgets: tuple[float, ...]
    results: tuple[Result, ...]
    front: tuple[FrontSpan, ...]
    uploaded: int | None = None  # bytes of uploading all tokens once in int8, if it is known


def analyze(
    logs: Mapping[str, Sequence[Lines]],
    settings: Mapping[str, str] | None = None,
    target_accuracy: float | None = None,
    uploaded: int | None = None,
) -> Comparison:
    """Compute the figures of a comparison.

    Args:
        logs: strategy -> the run logs of its seeds; each with at least one evaluated round.
        settings: strategy -> what the sweep chose.
        target_accuracy: 0 to 1; None for the reference's best accuracy - 0.5 points.
        uploaded: bytes of uploading all tokens once.
    """
    curves = {name: [points(lines) for lines in runs] for name, runs in logs.items()}
    best = {name: _bought(of_seeds, None) for name, of_seeds in curves.items()}
    federated = [name for name in best if name != CENTRAL] or list(best)
    most_accurate = max(federated, key=lambda name: best[name].median or 0.0)
    reference = FEDAVG if FEDAVG in best else most_accurate
    if target_accuracy is None:
        target_accuracy = (best[reference].median or 0.0) - TARGET_MARGIN
    whole = median(curve[-1].wire_bytes for curve in curves[reference])
    budgets = tuple(share * whole for share in BUDGET_SHARES)
    results = tuple(
        _result(name, runs, (settings or {}).get(name, "default"), target_accuracy, budgets)
        for name, runs in logs.items()
    )
    return Comparison(reference, target_accuracy, budgets, results, front(results), uploaded)


def points(lines: Lines, prefix: str = "", *, per_client: bool = False) -> list[Point]:
    """Return the rounds of a run that trained and were evaluated, in order.

    Args:
        lines: of a run log.
        prefix: of the fields to read; empty for the merged model.
        per_client: count the bytes of the client that has most so far, not of all together.
    """
    accuracy = f"{prefix}accuracy"
    totals = (
        _most_of_a_client(lines)
        if per_client
        else accumulate(line["wire_bytes_down"] + line["wire_bytes_up"] for line in lines)
    )
    return [
        Point(line["round"], total, line[accuracy], line.get(f"{prefix}validation_accuracy"))
        for line, total in zip(lines, totals, strict=True)
        if line["round"] > 0 and line.get(accuracy) is not None
    ]


def selected(curve: Sequence[Point], budget: float | None = None) -> Point | None:
    """Return the round with the best validation accuracy that a budget of bytes allows, if any.

    The first of equals is taken, for it needs the fewest bytes. Without validation accuracies it is
    the last round: choosing on the test examples is no option.
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
    totals: Counter[str] = Counter()
    for line in lines:
        totals.update(_of_client(line))
    return dict(totals)


def best_validation(lines: Lines) -> float | None:
    """Return the best validation accuracy of a run, by which settings are chosen."""
    point = selected(points(lines))
    return None if point is None else point.validation


def spread(values: Iterable[float | None]) -> Spread:
    """Return median, lowest and highest; None counts as a figure that was never reached."""
    known = [math.inf if value is None else value for value in values]
    figures = (median(known), min(known), max(known))
    return Spread(*(figure if math.isfinite(figure) else None for figure in figures))


def front(results: Iterable[Result]) -> tuple[FrontSpan, ...]:
    """Return the Pareto front with the neighbors of one strategy put together."""
    spans = [list(group) for _, group in groupby(front_points(results), key=lambda p: p[2])]
    return tuple(FrontSpan(s[0][2], s[0][0], s[-1][0], s[0][1], s[-1][1]) for s in spans)


def front_points(results: Iterable[Result]) -> list[tuple[float, float, str]]:
    """Return bytes, accuracy and strategy of each point of the Pareto front, the cheapest first.

    A point is a federated strategy stopped after a round: the median over the seeds of its bytes,
    and of its best accuracy so far by validation. It is on the front if no other point has at least
    its accuracy for as many bytes or fewer.
    """
    candidates = sorted(
        (point.wire_bytes, -point.chosen, result.strategy)
        for result in results
        if result.federated
        for point in result.curve
    )
    kept: list[tuple[float, float, str]] = []
    for wire_bytes, negative, strategy in candidates:
        if not kept or -negative > kept[-1][1]:
            kept.append((wire_bytes, -negative, strategy))
    return kept


def _most_of_a_client(lines: Lines) -> Iterator[int]:
    """Yield, for each line, the bytes up to its end of the client that has most."""
    totals: Counter[str] = Counter()
    for line in lines:
        totals.update(_of_client(line))
        yield max(totals.values(), default=0)


def _of_client(line: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: traffic["wire_bytes_down"] + traffic["wire_bytes_up"]
        for name, traffic in line["clients"].items()
    }


def _result(
    name: str, runs: Sequence[Lines], settings: str, target: float, budgets: Sequence[float]
) -> Result:
    curves = [points(lines) for lines in runs]
    # Rounds in which clients were asked to train; a closed form has one.
    trained = [[line for line in run if line["round"] and line["clients_selected"]] for run in runs]
    clients = [bytes_by_client(lines).values() for lines in runs]

    def mean_of(field: str) -> float:
        return median(fmean(line[field] for line in lines) for lines in trained)

    return Result(
        strategy=name,
        settings=settings,
        federated=name != CENTRAL,
        seeds=len(runs),
        rounds=max(curve[-1].server_round for curve in curves),
        best_accuracy=_bought(curves, None),
        final_accuracy=spread(curve[-1].accuracy for curve in curves),
        ensemble_accuracy=_bought([points(lines, _ENSEMBLE) for lines in runs], None),
        wire_bytes=spread(curve[-1].wire_bytes for curve in curves),
        bytes_to_target=spread(bytes_to(curve, target) for curve in curves),
        accuracy_at=tuple(_bought(curves, budget) for budget in budgets),
        round_bytes_down=mean_of("wire_bytes_down"),
        round_bytes_up=mean_of("wire_bytes_up"),
        client_bytes=Spread(
            median(median(totals) for totals in clients),
            median(min(totals) for totals in clients),
            median(max(totals) for totals in clients),
        ),
        coverage=mean_of("coverage"),
        clients_failed=sum(line["clients_failed"] for lines in runs for line in lines),
        curve=tuple(_curve(runs, curves)),
    )


def _curve(runs: Sequence[Lines], curves: Sequence[Sequence[Point]]) -> Iterable[CurvePoint]:
    for together in zip(*curves, strict=False):  # a run that failed in the middle ends the curve
        number = together[0].server_round
        chosen = [selected(c, point.wire_bytes) for c, point in zip(curves, together, strict=True)]
        covered = [line["coverage"] for lines in runs for line in lines if line["round"] == number]
        yield CurvePoint(
            server_round=number,
            wire_bytes=median(point.wire_bytes for point in together),
            accuracy=spread(point.accuracy for point in together),
            chosen=median(point.accuracy for point in chosen if point),
            coverage=median(covered),
        )


def _bought(curves: Iterable[Sequence[Point]], budget: float | None) -> Spread:
    """Return the accuracies that a budget buys; none where a seed cannot do one round with it."""
    chosen = [selected(curve, budget) for curve in curves]
    found = [point.accuracy for point in chosen if point]
    return spread(found) if len(found) == len(chosen) else Spread(None, None, None)
