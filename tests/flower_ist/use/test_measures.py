"""What an evaluation counts, by hand; and the same in any batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.use.measures import Measures, Share

# Four examples of three classes; the answers are 0, 0, 2, 2, the labels 0, 1, 2, 0.
PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]])
LABELS = np.array([0, 1, 2, 0])


def measured() -> Measures:
    found = Measures(("a", "b", "c"))
    found.add(PROBABILITIES, LABELS, ["x", "x", "y", "y"])
    return found


def test_by_hand():
    found = measured()
    assert found.confusion.tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 1]]
    assert found.accuracy == Share(2, 4)
    assert found.recall == {"a": Share(1, 2), "b": Share(0, 1), "c": Share(1, 1)}
    assert found.precision == {"a": Share(1, 2), "b": Share(0, 0), "c": Share(1, 2)}
    assert found.precision["b"].value is None
    assert found.clients == {"x": Share(1, 2), "y": Share(1, 2)}
    assert found.loss == pytest.approx(-math.log(0.9 * 0.4 * 0.8 * 0.2) / 4)


def test_the_calibration_error_by_hand():
    """Bins of 1/15: 0.9 (right) in 13, 0.8 (right) in 12, twice 0.6 (wrong) in 9.

    (|1 - 0.9| + |1 - 0.8| + |0 - 1.2|) / 4 = 0.375.
    """
    found = measured()
    assert found.calibration_error == pytest.approx(0.375)
    filled = {n: each for n, each in enumerate(found.bins) if each.right.examples}
    assert {n: each.right for n, each in filled.items()} == {
        9: Share(0, 2),
        12: Share(1, 1),
        13: Share(1, 1),
    }
    assert filled[9].mean_probability == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("share", "low", "high"),
    [
        (Share(8, 10), 0.49016, 0.94332),  # statsmodels' proportion_confint(8, 10, method="wilson")
        (Share(0, 10), 0.0, 0.27754),  # z^2 / (n + z^2)
        (Share(10, 10), 0.72246, 1.0),
        (Share(0, 0), 0.0, 1.0),
    ],
)
def test_wilson_s_interval(share: Share, low: float, high: float):
    assert share.interval == pytest.approx((low, high), abs=1e-5)


def test_a_probability_of_0_and_of_1():
    found = Measures(("a", "b"))
    found.add(np.array([[1.0, 0.0]]), np.array([1]))
    assert math.isfinite(found.loss)
    assert found.bins[-1].right == Share(0, 1)
    assert found.calibration_error == 1
    assert found.clients == {}


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_any_batches_give_the_same(seed: int, count: int, size: int):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(3), count)
    labels = generator.integers(0, 3, count)
    owners = generator.choice(["x", "y"], count).tolist()
    whole, parts = Measures("abc"), Measures("abc")
    whole.add(probabilities, labels, owners)
    for start in range(0, count, size):
        rows = slice(start, start + size)
        parts.add(probabilities[rows], labels[rows], owners[rows])
    np.testing.assert_array_equal(whole.confusion, parts.confusion)
    assert whole.clients == parts.clients
    assert whole.loss == pytest.approx(parts.loss)
    assert whole.calibration_error == pytest.approx(parts.calibration_error)
    low, high = whole.accuracy.interval
    assert 0 <= low <= (whole.accuracy.value or 0) <= high <= 1
