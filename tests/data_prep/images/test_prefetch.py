"""Work ahead in threads: the order, the bound, and errors."""

import threading

import pytest
import torch

from data_prep import PrepError
from data_prep.images.prefetch import prefetch


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_results_come_in_order_for_any_number_of_workers(workers):
    turns = [threading.Event() for _ in range(8)]

    def make(item):
        # Of two neighbors the second is finished first, where two are made at once.
        if workers == 4 and item % 2 == 0:
            turns[item].wait(timeout=10)
        elif workers == 4:
            turns[item - 1].set()
        return item * item

    assert list(prefetch(make, range(8), workers)) == [k * k for k in range(8)]


def test_nothing_is_made_without_workers_before_it_is_asked_for():
    made = []
    results = prefetch(made.append, range(5), 0)
    assert made == []
    next(results)
    assert made == [0]


def test_as_many_run_at_once_as_there_are_workers():
    together = threading.Barrier(3, timeout=60)
    assert list(prefetch(lambda item: together.wait() >= 0, range(6), 3)) == [True] * 6


def test_no_more_than_two_results_a_worker_wait():
    taken = []
    items = iter(lambda: taken.append(0) or len(taken), None)
    results = prefetch(lambda item: item, items, 3)
    for asked in range(1, 5):
        assert next(results) == asked
        # Six wait or are made, beside those handed over.
        assert len(taken) == 6 + asked
    results.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_where_its_result_was_due(workers):
    def make(item):
        if item == 3:
            raise PrepError("Image 3 is damaged.")
        return item

    results = prefetch(make, range(9), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(PrepError, match=r"Image 3 is damaged\."):
        next(results)


def test_the_threads_end_with_the_last_result_and_with_a_consumer_that_stops():
    before = threading.active_count()
    assert list(prefetch(str, range(3), 2)) == ["0", "1", "2"]
    results = prefetch(str, range(100), 2)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_the_callers_torch_threads_stay_as_they_are():
    before = torch.get_num_threads()
    list(prefetch(lambda _: torch.ones(3).sum(), range(4), 2))
    assert torch.get_num_threads() == before
