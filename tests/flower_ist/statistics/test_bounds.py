"""What a client's statistics count for, by the measure of the others; numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flower_ist.statistics.bounds import Others, UnlikeOthersError, bound_by_others
from flower_ist.statistics.sums import Statistics
from tests.fakes.hostile import flipped, larger, times

CENTERS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])


def client(*counts: int, seed: int = 0, gram: bool = True) -> Statistics:
    """Statistics of so many tokens of each of three classes, 0.1 around their centers."""
    statistics = Statistics.empty(3, 2, gram=gram)
    labels = np.repeat(np.arange(3), counts)
    noise = 0.1 * np.random.default_rng(seed).normal(size=(len(labels), 2))
    statistics.add_tokens(CENTERS[labels] + noise, labels)
    return statistics


HONEST = [client(10, 10, 10, seed=seed) for seed in range(3)]


def examples(found) -> list[int]:
    return [int(part.counts.sum()) for part in found]


def test_honest_clients_count_as_they_are():
    """Of 3 to 600 examples, and with classes that only they have: nothing is copied even."""
    clients = [*HONEST, client(200, 200, 200), client(1, 1, 1), client(0, 0, 30)]
    assert all(a is b for a, b in zip(bound_by_others(clients, 20), clients, strict=True))


@pytest.mark.parametrize("gram", [True, False])
def test_a_lie_that_others_do_not_recognize_counts_like_the_median(gram):
    """30 x 10^6 examples count for the median client's 30, its classes in the same shares."""
    honest = [client(10, 10, 10, seed=seed, gram=gram) for seed in range(3)]
    liar = times(10**6)(flipped(client(15, 10, 5, gram=gram)))
    found = bound_by_others([*honest, liar], 20)
    assert examples(found) == [30, 30, 30, 30]
    assert list(found[3].counts) == [5, 15, 10]
    assert np.allclose(found[3].sums, liar.sums / 10**6)


def test_one_that_others_recognize_counts_for_up_to_the_bound():
    many = times(25)(client(10, 10, 10))
    assert examples(bound_by_others([*HONEST, many], 20))[3] == 600  # 20 x 30 of 750
    assert examples(bound_by_others([*HONEST, many], 25))[3] == 750
    assert examples(bound_by_others([*HONEST, many], 1))[3] == 30
    assert examples(bound_by_others([*HONEST, many], 0))[3] == 750


def test_two_clients_cannot_measure_each_other():
    clients = [HONEST[0], times(10**6)(flipped(HONEST[1]))]
    assert bound_by_others(clients, 20) == clients


@pytest.mark.parametrize(
    ("factor", "counts"), [(2.9, True), (3.1, False), (100.0, False), (1e-3, True)]
)
@pytest.mark.parametrize("gram", [True, False])
def test_tokens_that_are_too_large_are_refused_and_small_ones_do_not_refuse_others(
    factor, counts, gram
):
    honest = [client(10, 10, 10, seed=seed, gram=gram) for seed in range(3)]
    found = bound_by_others([*honest, larger(factor)(honest[0])], 20)
    assert all(a is b for a, b in zip(found[:3], honest, strict=True))
    assert isinstance(found[3], UnlikeOthersError) != counts
    if not counts:
        assert "times as large as the median client's" in str(found[3])


def test_one_coordinate_alone_may_be_ten_times_as_large():
    """Of 200 coordinates one of 15 times the size doubles all squares, which may grow 9 times."""
    rng = np.random.default_rng(0)
    tokens, labels = rng.normal(size=(4, 50, 200)), np.arange(50) % 3
    tokens[3, :, 7] *= 15
    clients = []
    for part in tokens:
        clients.append(Statistics.empty(3, 200, gram=True))
        clients[-1].add_tokens(part, labels)
    found = bound_by_others(clients, 20)
    assert "in coordinate 7" in str(found[3])
    tokens[3, :, 7] *= 5 / 15
    clients[3] = Statistics.empty(3, 200, gram=True)
    clients[3].add_tokens(tokens[3], labels)
    assert bound_by_others(clients, 20)[3] is clients[3]


def test_a_refused_client_has_no_voice():
    """Its means would make the others' unrecognizable: the large honest client would be cut."""
    large = client(100, 100, 100)
    liars = [larger(1000)(flipped(client(10, 10, 10, seed=seed))) for seed in range(2)]
    found = bound_by_others([*HONEST, large, *liars], 20)
    assert found[3] is large
    assert all(isinstance(part, UnlikeOthersError) for part in found[4:])


def test_a_class_that_nobody_else_has_is_not_recognized():
    others = [client(10, 10, 0, seed=seed) for seed in range(3)]
    assert examples(bound_by_others([*others, client(0, 0, 100)], 20))[3] == 20
    assert examples(bound_by_others([*others, client(60, 0, 50)], 20))[3] == 110


def test_a_client_that_joins_is_compared_with_those_that_are_counted():
    total = Statistics.total(HONEST)
    others = Others.counted(total, [30.0, 30.0, 30.0])
    assert others is not None
    late = client(10, 10, 10, seed=9)
    assert others.bounded(late, 20) is late
    assert int(others.bounded(times(10**6)(flipped(late)), 20).counts.sum()) == 30
    with pytest.raises(UnlikeOthersError):
        others.bounded(larger(100)(late), 20)
    assert Others.counted(total, [90.0]) is None


def test_a_share_of_statistics_keeps_means_and_classes():
    whole = client(100, 1, 0)
    share = whole.scaled(0.25)
    assert list(share.counts) == [25, 1, 0]
    assert np.allclose(share.sums[0] / 25, whole.sums[0] / 100)
    assert np.allclose(share.sums[1], whole.sums[1])
    assert np.allclose(share.gram, whole.gram / 4)
