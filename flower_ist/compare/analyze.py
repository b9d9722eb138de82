"""From run logs to the figures of a comparison. Pure functions; docs/comparing.md defines each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median

from flower_ist.compare.curves import (
    ENSEMBLE,
    Lines,
    Point,
    bytes_by_client,
    bytes_to,
    points,
    selected,
    training_rounds,
)
from flower_ist.compare.plan import CENTRAL, FEDAVG

BUDGET_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Budgets at which accuracies are compared, as shares of the reference's bytes."""
TARGET_MARGIN = 0.005


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds, its middle one and its range.

    A seed that never got there counts as infinite: ``high`` is None if one did not, ``median`` if
    half of them did not, and ``low`` if none did.
    """

    median: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CurvePoint:
    """A strategy at the end of a round: medians over the seeds, and the range of accuracies.

    ``accuracy`` is the round's own; ``chosen`` is that of the best round so far by validation.
    """

    server_round: int
    wire_bytes: float
    accuracy: Spread
    chosen: float
    coverage: float


@dataclass(frozen=True)
class Result:
    """A strategy's figures. Bytes are wire bytes, of both directions unless they name one.

    Attributes:
        strategy: its name in the plan.
        settings: the swept settings that validation chose; ``default`` without a sweep.
        federated: False for ``central``, whose bytes no federation would send.
        seeds: number of runs.
        rounds: rounds of training.
        best_accuracy: test accuracy of the round with the best validation accuracy.
        final_accuracy: test accuracy of the last round.
        ensemble_accuracy: as ``best_accuracy``, of the averaged logits of slices that are kept for
            good (``ist-fixed``); None for all others.
        wire_bytes: of a whole run.
        bytes_to_target: until the target accuracy is reached.
        accuracy_at: for each budget, the best accuracy that it buys.
        round_bytes_down: mean over the rounds that trained.
        round_bytes_up: the same.
        client_bytes: of a whole run: the median client, the lowest and the highest one.
        coverage: mean share of the weights that a round trained.
        clients_failed: client-rounds that brought nothing, summed over the seeds.
        curve: one point a round.
    """

    strategy: str
    settings: str
    federated: bool
    seeds: int
    rounds: int
    best_accuracy: Spread
    final_accuracy: Spread
    ensemble_accuracy: Spread
    wire_bytes: Spread
    bytes_to_target: Spread
    accuracy_at: tuple[Spread, ...]
    round_bytes_down: float
    round_bytes_up: float
    client_bytes: Spread
    coverage: float
    clients_failed: int
    curve: tuple[CurvePoint, ...]


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


def analyze(
    logs: Mapping[str, Sequence[Lines]],
    settings: Mapping[str, str] | None = None,
    target_accuracy: float | None = None,
) -> Comparison:
    """Compute the figures of a comparison.

    Args:
        logs: strategy -> the run logs of its seeds; each with at least one evaluated round.
        settings: strategy -> what the sweep chose.
        target_accuracy: 0 to 1; None for the reference's best accuracy - 0.5 points.
    """
    curves = {name: [points(lines) for lines in runs] for name, runs in logs.items()}
    best = {name: _bought(of_seeds, None) for name, of_seeds in curves.items()}
    reference = _reference(best)
    if target_accuracy is None:
        target_accuracy = (best[reference].median or 0.0) - TARGET_MARGIN
    whole = median(curve[-1].wire_bytes for curve in curves[reference])
    budgets = tuple(share * whole for share in BUDGET_SHARES)
    results = tuple(
        _result(name, runs, (settings or {}).get(name, "default"), target_accuracy, budgets)
        for name, runs in logs.items()
    )
    return Comparison(reference, target_accuracy, budgets, results, front(results))


def spread(values: Iterable[float | None]) -> Spread:
    """Return median, lowest and highest; None counts as a figure that was never reached."""
    known = [math.inf if value is None else value for value in values]
    return Spread(*(_known(f) for f in (median(known), min(known), max(known))))


def front(results: Iterable[Result]) -> tuple[FrontSpan, ...]:
    """Return the Pareto front of bytes and accuracy over all rounds of all federated strategies.

    A point is a strategy stopped after a round: the median over the seeds of its bytes, and of its
    best accuracy so far by validation. It is on the front if no point has at least its accuracy
    for as many bytes or fewer. Neighbors of one strategy are put together.
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
    spans = [list(group) for _, group in groupby(kept, key=lambda point: point[2])]
    return tuple(FrontSpan(s[0][2], s[0][0], s[-1][0], s[0][1], s[-1][1]) for s in spans)


def _reference(best: Mapping[str, Spread]) -> str:
    """Return FedAvg, or without it the most accurate federated strategy."""
    if FEDAVG in best:
        return FEDAVG
    federated = [name for name in best if name != CENTRAL] or list(best)
    return max(federated, key=lambda name: best[name].median or 0.0)


def _result(
    name: str, runs: Sequence[Lines], settings: str, target: float, budgets: Sequence[float]
) -> Result:
    curves = [points(lines) for lines in runs]
    trained = [training_rounds(lines) for lines in runs]
    by_client = [bytes_by_client(lines).values() for lines in runs]
    return Result(
        strategy=name,
        settings=settings,
        federated=name != CENTRAL,
        seeds=len(runs),
        rounds=max(curve[-1].server_round for curve in curves),
        best_accuracy=_bought(curves, None),
        final_accuracy=spread(curve[-1].accuracy for curve in curves),
        ensemble_accuracy=_bought([points(lines, ENSEMBLE) for lines in runs], None),
        wire_bytes=spread(curve[-1].wire_bytes for curve in curves),
        bytes_to_target=spread(bytes_to(curve, target) for curve in curves),
        accuracy_at=tuple(_bought(curves, budget) for budget in budgets),
        round_bytes_down=_mean_of(trained, "wire_bytes_down"),
        round_bytes_up=_mean_of(trained, "wire_bytes_up"),
        client_bytes=Spread(
            median(median(totals) for totals in by_client),
            median(min(totals) for totals in by_client),
            median(max(totals) for totals in by_client),
        ),
        coverage=_mean_of(trained, "coverage"),
        clients_failed=sum(line["clients_failed"] for lines in runs for line in lines),
        curve=tuple(_curve(runs, curves)),
    )


def _curve(runs: Sequence[Lines], curves: Sequence[Sequence[Point]]) -> Iterable[CurvePoint]:
    for together in zip(*curves, strict=False):  # a run that failed in the middle ends the curve
        number = together[0].server_round
        chosen = [
            selected(curve, point.wire_bytes) for curve, point in zip(curves, together, strict=True)
        ]
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


def _mean_of(runs: Sequence[Lines], field: str) -> float:
    """Return the mean of a field over a run's lines, and of that the median over the runs."""
    return median(fmean(line[field] for line in lines) for lines in runs)


def _known(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None
