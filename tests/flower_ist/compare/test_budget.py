"""Arithmetic of a search: rounds that a budget pays for, rungs, ranking, and the answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.compare.analyze import Point, Spread
from flower_ist.compare.budget import (
    FINALISTS,
    Cost,
    Found,
    Question,
    best,
    better_half,
    budgets,
    finalists,
    front,
    ranked,
    stops,
    weighed,
)


def curve(first: int, later: int, *validation: float) -> list[Point]:
    """Rounds of the same bytes; test accuracy is the opposite of validation accuracy."""
    return [
        Point(number, first + (number - 1) * later, 1 - share, share)
        for number, share in enumerate(validation, 1)
    ]


def found(candidate: str, rounds: int, wire_bytes: int, validation: float) -> Found:
    return Found(candidate, rounds, 1, wire_bytes, validation, Spread(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [(999, 0), (1000, 1), (1299, 1), (1300, 2), (1600, 3), (math.inf, 5), (10**9, 5)],
)
def test_how_many_rounds_a_budget_pays_for(budget, rounds):
    assert Cost(first=1000, later=300).rounds(budget, most=5) == rounds


def test_a_closed_form_has_one_round():
    cost = Cost.of(curve(1000, 0, 0.5))
    assert cost == Cost(1000, 0)
    assert [cost.rounds(budget, most=1) for budget in (999, 1000, math.inf)] == [0, 1, 1]


def test_the_last_round_stands_for_those_to_come():
    """In compact a message's size changes: 100, then 60, then 50 bytes a round."""
    sizes = [Point(1, 100, 0, 0), Point(2, 160, 0, 0), Point(3, 210, 0, 0)]
    assert Cost.of(sizes) == Cost(100, 50)
    assert Cost.of(sizes[:1], later=60) == Cost(100, 60)


def test_the_rungs_of_a_budget_double():
    assert budgets(Question(2e6), [Cost(1, 1)], most=9) == [5e5, 1e6, 2e6]


def test_the_rungs_of_a_target_double_until_all_can_pay_for_all():
    """Four rounds cost 100 + 3 x 50 = 250 and 300 + 3 x 50 = 450."""
    costs = [Cost(100, 50), Cost(300, 50)]
    assert budgets(Question(target=0.7), costs, most=4) == [200, 400, 800]


def test_whoever_has_most_rounds_is_not_asked_most_often():
    """Rounds 1, 2, 4, 8 and the last that the budget pays for."""
    rounds = curve(100, 100, *[0.5] * 12)
    assert [p.server_round for p in weighed(rounds, 1100)] == [1, 2, 4, 8, 11]
    assert weighed(rounds, 99) == []


def test_the_ranking_is_by_validation_within_the_budget():
    curves = {
        "dear": curve(500, 500, 0.9, 0.9),
        "late": curve(100, 100, 0.1, 0.2, 0.3, 0.99),  # round 4 costs 400
        "same": curve(100, 100, 0.1, 0.3),
        "good": curve(200, 100, 0.8, 0.4),
    }
    assert ranked(curves, 399) == ["good", "same", "late"]


def test_two_names_of_one_net_have_one_place():
    same = curve(100, 100, 0.5, 0.6)
    other = [*same[:1], Point(2, 200, 0.4, 0.5)]
    assert ranked({"whole": same, "narrow": [*same], "other": other}, 200) == ["whole", "other"]


@pytest.mark.parametrize(("count", "left"), [(16, 8), (9, 5), (8, 4), (5, 4), (3, 3), (0, 0)])
def test_the_better_half_goes_on(count, left):
    names = [str(number) for number in range(count)]
    assert better_half(names) == names[:left]


def test_finalists_of_a_budget_are_the_best_after_the_last_rung():
    curves = {str(n): curve(100, 100, n / 10) for n in range(9)}
    assert finalists(Question(200), curves, 100) == []
    assert finalists(Question(200), curves, 200) == ["8", "7", "6", "5"][:FINALISTS]


def test_finalists_of_a_target_reached_it_with_the_fewest_bytes():
    curves = {
        "third": curve(100, 100, 0.5, 0.6, 0.7),  # 300 bytes, in a round that is no power of two
        "first": curve(250, 100, 0.7, 0.9),
        "never": curve(10, 10, 0.69, 0.1),
        "dear": curve(301, 1, 0.9),
    }
    assert finalists(Question(target=0.7), curves, 300) == ["first", "third"]


def test_a_stop_is_the_mean_over_the_seeds_and_the_dearest_of_them():
    seeds = [curve(100, 50, 0.6, 0.8, 0.9), curve(120, 50, 0.7, 0.6)]
    first, second = stops("a", seeds, 200)
    assert (first.rounds, first.seeds, first.wire_bytes) == (1, 2, 120)
    assert first.validation == pytest.approx(0.65)
    assert (second.rounds, second.wire_bytes) == (2, 170)
    assert second.accuracy.high == pytest.approx(0.4)
    assert [stop.rounds for stop in stops("a", seeds, 169)] == [1]


def test_the_answer_to_a_budget_is_the_best_and_of_equals_the_cheapest():
    tried = [found("a", 1, 300, 0.8), found("b", 1, 100, 0.8), found("c", 1, 50, 0.7)]
    assert best(Question(1000), tried) == tried[1]
    assert best(Question(1000), []) is None


def test_a_lucky_third_round_is_no_answer_unless_it_is_the_last():
    tried = [found("a", n, 100 * n, share) for n, share in enumerate((0.6, 0.7, 0.9, 0.8), 1)]
    assert best(Question(1000), tried) == tried[3]
    assert best(Question(1000), tried[:3]) == tried[2]


def test_the_answer_to_a_target_is_the_cheapest_that_reaches_it():
    tried = [found("a", 1, 300, 0.9), found("b", 3, 200, 0.71), found("c", 1, 50, 0.69)]
    assert best(Question(target=0.7), tried) == tried[1]
    assert best(Question(target=0.95), tried) is None


def test_the_front_has_what_nothing_cheaper_reaches():
    tried = [found("a", 1, 300, 0.8), found("b", 1, 100, 0.8), found("c", 1, 400, 0.9)]
    assert front(tried) == [tried[1], tried[2]]


shares = st.floats(0, 1)
runs = st.builds(
    lambda first, steps: [
        Point(number, first + sum(size for size, _ in steps[:number]), share, share)
        for number, (_, share) in enumerate(steps, 1)
    ],
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 500), shares), min_size=1, max_size=6),
)


@given(st.dictionaries(st.text(max_size=2), st.lists(runs, min_size=1, max_size=3)), shares)
def test_no_answer_costs_any_seed_more_than_the_budget(curves, part):
    budget = part * 4000
    tried = [stop for name, seeds in curves.items() for stop in stops(name, seeds, budget)]
    answer = best(Question(budget), tried)
    if answer is None:
        assert all(max(c[0].wire_bytes for c in seeds) > budget for seeds in curves.values())
        return
    spent = [run[answer.rounds - 1].wire_bytes for run in curves[answer.candidate]]
    assert max(spent) == answer.wire_bytes <= budget
