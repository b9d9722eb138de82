"""Weighted means by hand, and reports that must not spoil them."""

import math

import pytest
from flwr.app import MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.wire.reported import finite, mean_metrics

LARGEST = 1.7976931348623157e308


def mean(*reports):
    contents = [RecordDict({"metrics": MetricRecord(report)}) for report in reports]
    return dict(mean_metrics(contents, "n"))


def test_mean_by_hand():
    """(1 * 2 + 3 * 6) / 4 = 5; b was reported by the second client alone."""
    assert mean({"n": 1, "a": 2.0}, {"n": 3, "a": 6, "b": 8.0}) == {"a": 5.0, "b": 8.0}


def test_equal_values_have_exactly_that_mean():
    assert mean(*({"n": n, "a": 0.1} for n in (3, 7, 11))) == {"a": 0.1}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1.0, 2.0], []])
def test_values_that_are_not_one_finite_number_are_left_out(value):
    assert mean({"n": 5, "a": value}, {"n": 5, "a": 2.0}) == {"a": 2.0}
    assert mean({"n": 5, "a": value}) == {}


@pytest.mark.parametrize("weight", [0, -3, math.nan, math.inf, [4]])
def test_reports_without_a_weight_above_zero_are_left_out(weight):
    assert mean({"n": weight, "a": 9.0}, {"n": 2, "a": 1.0}) == {"a": 1.0}
    assert mean({"a": 9.0}) == {}


def test_no_reports_and_reports_without_metrics():
    assert mean() == {}
    assert dict(mean_metrics([RecordDict()], "n")) == {}


def test_sums_that_overflow_still_have_a_mean():
    assert mean({"n": 10**9, "a": LARGEST}, {"n": 10**9, "a": LARGEST}) == {"a": LARGEST}
    assert mean({"n": 10**9, "a": LARGEST}, {"n": 10**9, "a": -LARGEST}) == {"a": 0.0}
    assert mean({"n": LARGEST, "a": 1.0}, {"n": LARGEST, "a": 3.0}) == {"a": 2.0}


numbers = st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1), st.lists(st.floats()))


@given(st.lists(st.fixed_dictionaries({}, optional={"n": numbers, "a": numbers}), max_size=6))
def test_a_mean_is_finite_and_between_the_values_whatever_is_reported(reports):
    values = [finite(report.get("a")) for report in reports if (finite(report.get("n")) or 0) > 0]
    values = [value for value in values if value is not None]
    found = mean(*reports)
    assert found.keys() == ({"a"} if values else set())
    if values:
        assert min(values) <= found["a"] <= max(values)


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (-0.5, -0.5), (True, None), ("3", None), (None, None), ([1], None), (10**400, None)],
)
def test_finite(value, number):
    assert finite(value) == number
