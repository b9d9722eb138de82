"""Directions in a byte a number: by hand, and close to the covariance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_ist.statistics.compact_factor import (
    decode_factor,
    directions_of,
    encode_factor,
    noise_of_step,
)


def test_directions_by_hand():
    """[[5, 4], [4, 5]] varies by 9 along (1, 1) / sqrt(2) and by 1 along (1, -1) / sqrt(2)."""
    rows = directions_of(np.array([[5.0, 4], [4, 5]]))
    np.testing.assert_allclose(np.abs(rows), np.array([[3, 3], [1, 1]]) / 2**0.5)
    np.testing.assert_allclose(rows.T @ rows, [[5, 4], [4, 5]])


def test_a_covariance_that_rounding_made_negative_has_directions():
    rows = directions_of(np.array([[1.0, 0], [0, -1e-9]]))
    np.testing.assert_allclose(np.abs(rows), [[1, 0], [0, 0]])


def test_by_hand():
    """The squares of the first two add up to 32 nearly, 16 a coordinate: the step is 4 / 32, and
    2 / 64 / 12 = 0.0026 is what rounding adds to a square. 0.05^2 is below twice that, and 0.2^2
    above."""
    step, numbers = encode_factor(np.array([[4.0, -3.9], [0.2, 0]]))
    assert (step.dtype, numbers.dtype) == (np.float32, np.int8)
    assert step[0] == pytest.approx(np.sqrt((16 + 15.21 + 0.04) / 2) / 32, rel=1e-6)
    assert numbers.tolist() == [[32, -32], [2, 0]]
    np.testing.assert_array_equal(decode_factor(step, numbers), numbers * step)
    step, numbers = encode_factor(np.array([[4.0, 4], [0.05, 0]]))
    assert numbers.tolist() == [[32, 32], [0, 0]]
    assert decode_factor(step, numbers).shape == (1, 2)


def test_one_large_number_makes_the_step_longer():
    """The root of a coordinate's mean square is 254 / 10, and 254 / 127 = 2 is more than a 32nd."""
    rows = np.zeros((1, 100))
    rows[0, 7] = 254
    step, numbers = encode_factor(rows)
    assert step[0] == pytest.approx(2, rel=1e-6)
    assert numbers[0, 7] == 127


def test_nothing_varies():
    step, numbers = encode_factor(np.zeros((3, 3)))
    assert (step.tolist(), numbers.any()) == ([0], False)
    assert decode_factor(step, numbers).shape == (0, 3)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([1e-5, 1e-2, 1.0, 500.0]))
def test_numbers_are_within_half_a_step_and_rows_far_from_dependent(dim, seed, size):
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(dim, dim)) * generator.uniform(0.001, 1, dim)[:, None]
    rows = size * directions_of(root.T @ root)
    step, numbers = encode_factor(rows)
    found = decode_factor(step, numbers).astype(np.float64)
    kept = rows[: len(found)]
    assert (np.abs(found - kept) <= step / 2 * 1.001).all()
    left = (rows[len(found) :] ** 2).sum(axis=1)
    assert (left <= 2.001 * noise_of_step(step[0], dim)).all()
    cosines = np.linalg.svd(found / np.linalg.norm(found, axis=1, keepdims=True), compute_uv=False)
    assert cosines[-1] > 0.1
