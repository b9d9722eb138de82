"""A Cholesky factor in a byte a number: by hand, and within its bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.statistics.compact_factor import decode_factor, encode_factor


def test_by_hand():
    """Row 1 is 254: scale 2. Row 2 is 127, -63.4, whose scale is 1. Row 3 is all 0."""
    factor = np.array([[254, 0, 0], [127, -63.4, 0], [0, 0, 0]], np.float32)
    scales, numbers = encode_factor(factor)
    assert (scales.dtype, scales.tolist()) == (np.float16, [2, 1, 0])
    assert (numbers.dtype, numbers.tolist()) == (np.int8, [127, 127, -63, 0, 0, 0])
    assert decode_factor(scales, numbers).tolist() == [[254, 0, 0], [127, -63, 0], [0, 0, 0]]


def test_a_scale_between_two_of_float16_is_rounded_up():
    """127 (1 + 2^-12) is nearer to 1 than to 1 + 2^-10, the next float16, and 127 would not do."""
    scales, numbers = encode_factor(np.array([[127 * (1 + 2**-12)]]))
    assert scales.tolist() == [1 + 2**-10]
    assert numbers.tolist() == [127]


@given(st.integers(1, 30), st.integers(0, 2**32), st.sampled_from([1e-5, 1e-2, 1.0, 500.0]))
def test_the_covariance_is_within_the_bound_of_the_docstring(dim, seed, size):
    """With room for float32's rounding."""
    generator = np.random.default_rng(seed)
    root = size * generator.normal(size=(dim, dim)) * generator.uniform(0.01, 1, dim)[:, None]
    factor = np.linalg.cholesky(root @ root.T + 1e-6 * size**2 * np.eye(dim))
    exact = factor @ factor.T
    scales, numbers = encode_factor(factor)
    lengths = np.arange(1, dim + 1)
    assert (scales.astype(float) * 127 >= np.abs(factor).max(axis=1)).all()
    found = decode_factor(scales, numbers).astype(np.float64)
    s, r = np.sqrt(np.diagonal(exact)), np.sqrt(lengths) * scales / 2
    bound = np.outer(s, r) + np.outer(r, s) + np.outer(r, r)
    assert (np.abs(found @ found.T - exact) <= bound + 1e-6 * np.outer(s, s)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_was_read_is_sent_again_as_it_was(dtype):
    factor = np.tril(np.random.default_rng(2).normal(size=(20, 20))).astype(dtype)
    once = encode_factor(factor)
    again = encode_factor(decode_factor(*once))
    for first, second in zip(once, again, strict=True):
        np.testing.assert_array_equal(first, second)
