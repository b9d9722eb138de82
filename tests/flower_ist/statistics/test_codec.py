"""A Gram matrix in whole numbers: by hand, within its bounds, and always one of tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_ist.statistics.codec import (
    COMPACT_LEVELS,
    LEVELS,
    decode_gram,
    decode_means,
    encode_gram,
    encode_means,
)


def encoded(tokens):
    return encode_gram(tokens.T @ tokens, tokens.sum(axis=0), len(tokens))


def decoded(tokens):
    return decode_gram(*encoded(tokens), tokens.sum(axis=0), len(tokens))


def test_by_hand():
    """(1, 1.4), (-1, -1.4), (1, -0.2) and (-1, 0.2) around their mean (5, 5).

    The squares sum up to 4 and 2 (1.96 + 0.04) = 4, the products to 2 (1.4 - 0.2) = 2.4: the
    correlation is 0.6, whose Cholesky factor has the rows (1) and (0.6, 0.8). 32,767 x 0.6 =
    19,660.2 and 32,767 x 0.8 = 26,213.6.
    """
    tokens = np.array([[1, 1.4], [-1, -1.4], [1, -0.2], [-1, 0.2]]) + 5
    spreads, factor = encoded(tokens)
    np.testing.assert_allclose(spreads, [2, 2], rtol=1e-7)
    assert factor.tolist() == [32_767, 19_660, 26_214]
    np.testing.assert_allclose(decoded(tokens), [[104, 102.4], [102.4, 104]], atol=1e-4)


@st.composite
def token_sets(draw):
    """Up to 40 tokens of up to 12 numbers: on scales from 0.001 to 1000, up to 100 of their spreads
    away from 0, some coordinates copies of others, some constant."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, dim = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    tokens = generator.normal(size=(count, dim)) @ generator.normal(size=(dim, dim))
    tokens[:, generator.integers(dim)] = tokens[:, generator.integers(dim)]
    tokens += 100 * generator.uniform(-1, 1, dim)
    tokens[:, generator.random(dim) < draw(st.sampled_from([0.0, 0.2]))] = 0.1
    return tokens * 10.0 ** generator.uniform(-3, 3, dim)


def compactly(tokens, total):
    spreads, factor = encode_gram(
        tokens.T @ tokens, tokens.sum(axis=0), len(tokens), COMPACT_LEVELS
    )
    return decode_gram(spreads, factor, total, len(tokens), None)


def test_compact_by_hand():
    """0.6 x 512 = 307.2 and 0.8 x 512 = 409.6, and 307 / sqrt(307^2 + 410^2) = 0.599374."""
    tokens = np.array([[1, 1.4], [-1, -1.4], [1, -0.2], [-1, 0.2]]) + 5
    found = compactly(tokens, tokens.sum(axis=0))
    np.testing.assert_allclose(found, [[104, 102.397496], [102.397496, 104]], atol=1e-5)


@settings(deadline=None)
@given(token_sets(), st.integers(0, 2**32))
def test_the_bounds_hold_in_compact(tokens, seed):
    dim, offsets = tokens.shape[1], tokens - tokens.mean(axis=0)
    exact, found = offsets.T @ offsets, compactly(tokens, np.zeros(dim))
    spread, size = np.sqrt(np.diagonal(exact)), np.linalg.norm(tokens, axis=0)
    e = dim**0.5 / 512
    bound = np.outer(spread, spread) * (2 * e + e * e)
    assert (np.abs(found - exact) <= bound + 1e-9 * np.outer(size, size)).all()
    np.testing.assert_allclose(np.diagonal(found), spread**2, rtol=1e-6, atol=1e-9 * size @ size)
    for v in np.random.default_rng(seed).normal(size=(8, dim)):
        reached = abs(np.sqrt(v @ found @ v) - np.linalg.norm(offsets @ v))
        w = np.linalg.norm(spread * v)
        assert reached <= dim**0.5 * e * w + 1e-6 * np.linalg.norm(size * v)


def test_class_means_by_hand():
    """Classes of 1 and 3 tokens with sums 2 and 10: the mean is 3. At a spread of 4, the standard
    deviation is 4 / sqrt(4) = 2: the means 2 and 10 / 3 are -1/2 and 1/6 of it away, in 256ths -128
    and 42.67. A third class has no token, and the second coordinate never varies."""
    counts, spreads = np.array([1, 3, 0]), np.array([4, 0], np.float32)
    mean, whole = encode_means(np.array([[2.0, 7], [10, 21], [0, 0]]), counts, spreads)
    assert (mean.tolist(), whole.tolist()) == ([3, 7], [[-128, 0], [43, 0], [0, 0]])
    found = decode_means(mean, whole, counts, spreads)
    np.testing.assert_allclose(found, [[2, 7], [9 + 3 * 2 * 43 / 256, 21], [0, 0]])


@settings(deadline=None)
@given(token_sets(), st.integers(0, 2**32))
def test_class_means_are_within_half_a_step(tokens, seed):
    one_hot = np.eye(4)[np.random.default_rng(seed).integers(0, 4, len(tokens))]
    counts, sums = one_hot.sum(axis=0).astype(np.int64), one_hot.T @ tokens
    spreads, _ = encoded(tokens)
    found = decode_means(*encode_means(sums, counts, spreads), counts, spreads)
    step = spreads / np.sqrt(len(tokens)) / 256
    bound = counts[:, None] * (0.5001 * step + 1e-6 * np.abs(tokens).max(axis=0))
    assert (np.abs(found - sums) <= bound).all()


@settings(deadline=None)
@given(token_sets(), st.integers(0, 2**32))
def test_the_bounds_of_the_docstring_hold(tokens, seed):
    """With room for what float64 rounds: 1e-12 of the products."""
    dim, offsets = tokens.shape[1], tokens - tokens.mean(axis=0)
    exact = offsets.T @ offsets
    found = decode_gram(*encoded(tokens), np.zeros(dim), len(tokens))
    spread, size = np.sqrt(np.diagonal(exact)), np.linalg.norm(tokens, axis=0)
    e = dim**0.5 / 65_534
    bound = np.outer(spread, spread) * (2 * e + e * e)
    assert (np.abs(found - exact) <= bound + 1e-12 * np.outer(size, size)).all()
    for v in np.random.default_rng(seed).normal(size=(8, dim)):
        reached = abs(np.sqrt(v @ found @ v) - np.linalg.norm(offsets @ v))
        w = np.linalg.norm(spread * v)
        assert reached <= dim**0.5 * e * w + 1e-6 * np.linalg.norm(size * v)


def test_a_direction_in_which_tokens_hardly_vary_keeps_its_spread():
    """Two coordinates that are equal but for a thousandth: rounding their correlation,
    1 - 5e-7, to a 32,767th would make the variance of their difference 0, that is 100 % wrong."""
    generator = np.random.default_rng(0)
    tokens = generator.normal(size=(500, 1)) + 1e-3 * generator.normal(size=(500, 2)) * [0, 1]
    difference = np.array([1.0, -1.0])
    exact = np.var(tokens @ difference) * 500
    found = decode_gram(*encoded(tokens), np.zeros(2), 500)
    assert difference @ found @ difference == pytest.approx(exact, rel=0.05)


def test_a_coordinate_that_never_varies_has_no_scatter():
    """The sums of 0.1 x 0.1 are rounded, and what that leaves is not taken for spread."""
    tokens = np.random.default_rng(1).normal(size=(1000, 3))
    tokens[:, 1] = 0.1
    spreads, factor = encoded(tokens)
    assert spreads[1] == 0
    assert spreads[[0, 2]].all()
    lower = np.zeros((3, 3))
    lower[np.tril_indices(3)] = factor
    assert not lower[1].any()
    assert decoded(tokens)[1, 1] == pytest.approx(10, rel=1e-9)


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e30])
def test_tokens_at_the_ends_of_float32(size):
    tokens = size * np.random.default_rng(4).normal(size=(50, 3))
    found = decoded(tokens) / size**2
    np.testing.assert_allclose(found, tokens.T @ tokens / size**2, rtol=0.01, atol=0.05)


@given(st.integers(1, 8), st.integers(0, 2**32))
def test_any_numbers_at_all_are_the_gram_matrix_of_some_tokens(dim, seed):
    """No eigenvalue is below 0, but for float64's rounding."""
    generator = np.random.default_rng(seed)
    factor = generator.integers(-(2**15), 2**15, dim * (dim + 1) // 2, np.int16)
    spreads = generator.uniform(0, 9, dim).astype(np.float32)
    eigenvalues = np.linalg.eigvalsh(decode_gram(spreads, factor, generator.normal(size=dim), 3))
    assert eigenvalues[0] >= -1e-12 * max(1.0, eigenvalues[-1])


def test_levels_are_those_of_int16():
    assert np.iinfo(np.int16).max == LEVELS
