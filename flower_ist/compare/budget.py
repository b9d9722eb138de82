"""Which run is best within a budget of bytes, or reaches a target with the fewest: pure functions.

Successive halving (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943), where what is
shared out is bytes: each candidate may spend a part of the budget, the better half of those that
did goes on with twice as much. A candidate whose first round is dearer waits until it can pay. So
nets of all sizes are compared at the same bytes. Only validation accuracies decide.

How well a run does is asked after 1, 2, 4, 8, ... rounds and after as many as it can pay for: to
take the best of all its rounds would favor those that have many, for curves are flat and noisy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from flower_ist.compare.analyze import Point, Spread, selected, spread

Curve = Sequence[Point]
FINALISTS = 4
"""So many candidates at least go on, and so many are trained with every seed."""
_RUNGS = 3
# The mean of equal accuracies may be less than each of them.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Question:
    """What is asked of the candidates.

    Attributes:
        budget: most bytes of a run; infinite where the fewest are asked for.
        target: validation accuracy to reach, 0 to 1; 0 where the best is asked for.
        per_client: bytes are those of the client that has most; otherwise of all clients together.
    """

    budget: float = math.inf
    target: float = 0.0
    per_client: bool = False

    def is_reached(self, validation: float) -> bool:
        """Return whether an accuracy is as high as the target; without one each is."""
        return validation >= self.target - _ROUNDING


@dataclass(frozen=True)
class Cost:
    """Metered bytes of a candidate.

    Attributes:
        first: up to the end of its first round, with all that comes before.
        later: of each round after it; 0: there is no other.
    """

    first: int
    later: int

    @classmethod
    def of(cls, curve: Curve, later: int = 0) -> Cost:
        """Return what a run cost; its last round stands for those that it did not do.

        Args:
            curve: of the run, at least one round.
            later: of a later round, where the run has none.
        """
        if len(curve) > 1:
            later = curve[-1].wire_bytes - curve[-2].wire_bytes
        return cls(curve[0].wire_bytes, later)

    def rounds(self, budget: float, most: int) -> int:
        """Return how many rounds a budget pays for, at most ``most``."""
        if self.first > budget:
            return 0
        if not self.later or math.isinf(budget):
            return most
        return min(most, 1 + int((budget - self.first) // self.later))


@dataclass(frozen=True)
class Found:
    """A candidate stopped after a round: means over its seeds."""

    candidate: str
    rounds: int
    seeds: int
    wire_bytes: int  # of the seed that needed most
    validation: float
    accuracy: Spread  # on test examples


def budgets(question: Question, costs: Collection[Cost], most: int) -> list[float]:
    """Return what each rung may spend, the last one all.

    Where the fewest bytes are asked for, rungs begin with the cheapest first round and double until
    every candidate can pay for all of its rounds.
    """
    if math.isfinite(question.budget):
        return [question.budget / 2**rung for rung in reversed(range(_RUNGS))]
    dearest = max(cost.first + (most - 1) * cost.later for cost in costs)
    found = [2.0 * min(cost.first for cost in costs)]
    while found[-1] < dearest:
        found.append(2 * found[-1])
    return found


def ranked(curves: Mapping[str, Curve], budget: float) -> list[str]:
    """Return the candidates that can pay for a round, the best on validation first.

    Of equals the one that needs fewer bytes comes first. Two names of one net, such as a whole one
    and a narrow one of that width, have the same curve, and one place.
    """
    chosen = {
        name: point for name, curve in curves.items() if (point := selected(weighed(curve, budget)))
    }
    order = sorted(chosen, key=lambda n: (-(chosen[n].validation or 0.0), chosen[n].wire_bytes))
    first = {tuple(curves[name]): name for name in reversed(order)}
    return [name for name in order if first[tuple(curves[name])] == name]


def weighed(curve: Curve, budget: float) -> Curve:
    """Return the rounds after which it is asked how well a run does within a budget."""
    allowed = [point for point in curve if point.wire_bytes <= budget]
    return [p for p in allowed if _is_power_of_two(p.server_round) or p is allowed[-1]]


def better_half(order: Sequence[str]) -> list[str]:
    """Return those of a ranking that go on."""
    return list(order[: max(FINALISTS, math.ceil(len(order) / 2))])


def finalists(question: Question, curves: Mapping[str, Curve], budget: float) -> list[str]:
    """Return whom to train with every seed after a rung with this budget, maybe none.

    After the last rung these are the best; with a target, after any, those that reached it with the
    fewest bytes.
    """
    if not question.target:
        return ranked(curves, budget)[:FINALISTS] if budget >= question.budget else []
    reached = {
        name: point.wire_bytes
        for name, curve in curves.items()
        for point in reversed(curve)  # the first to reach it has the last word
        if point.wire_bytes <= budget and question.is_reached(point.validation or 0.0)
    }
    return sorted(reached, key=lambda name: reached[name])[:FINALISTS]


def stops(candidate: str, curves: Sequence[Curve], budget: float) -> list[Found]:
    """Return a candidate after each round that every seed can pay for.

    Args:
        candidate: its name.
        curves: one a seed; the shortest decides.
        budget: most bytes of each.
    """
    found = []
    for together in zip(*curves, strict=False):
        spent = max(point.wire_bytes for point in together)
        if spent <= budget:
            found.append(
                Found(
                    candidate,
                    together[0].server_round,
                    len(together),
                    spent,
                    fmean(point.validation or 0.0 for point in together),
                    spread(point.accuracy for point in together),
                )
            )
    return found


def best(question: Question, found: Collection[Found]) -> Found | None:
    """Return the answer, or None if nothing is one.

    It is the best on validation, of equals the cheapest; with a target the cheapest that reaches
    it, of equals the best.

    Args:
        question: what is asked.
        found: candidates after each of their rounds that the budget pays for.
    """
    if not question.target:
        last = {f.candidate: f.rounds for f in sorted(found, key=lambda f: f.rounds)}
        asked = [f for f in found if _is_power_of_two(f.rounds) or f.rounds == last[f.candidate]]
        return max(asked, key=lambda f: (f.validation, -f.wire_bytes), default=None)
    reached = [f for f in found if question.is_reached(f.validation)]
    return min(reached, key=lambda f: (f.wire_bytes, -f.validation), default=None)


def front(found: Collection[Found]) -> list[Found]:
    """Return the Pareto front of bytes and validation accuracy, the cheapest first."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda f: (f.wire_bytes, -f.validation)):
        if not kept or one.validation > kept[-1].validation:
            kept.append(one)
    return kept


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
