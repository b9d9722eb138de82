"""The token prior: its numbers by hand, what it folds into a net, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.classifier.mlp import initial_weights, layers_of, logits
from flower_ist.statistics.gaussians import ClassGaussians
from flower_ist.statistics.prior import TokenPrior, prior_layout
from flower_ist.statistics.scale import TokenScale
from flower_ist.statistics.sums import Statistics
from flower_ist.wire.layout import layout_of

# Classes 0 and 1 have two tokens each, class 2 has none.
TOKENS = np.array([[0, 0], [2, 2], [4, 0], [6, 2]], dtype=np.float32)
LABELS = np.array([0, 0, 1, 1])
ROOT_5 = 5**0.5
HEAD = np.array([[1, 0], [0, 1], [2, -2]], np.float32)


def statistics(tokens: np.ndarray, labels: np.ndarray, num_classes: int = 3) -> Statistics:
    found = Statistics.empty(num_classes, tokens.shape[1], gram=True)
    found.add_tokens(tokens, labels)
    return found


def over_the_wire(found: Statistics, dtype: str) -> Statistics:
    """Return the statistics as the server sees them."""
    return Statistics.from_tensors(found.to_tensors(dtype))


def covariance(prior: TokenPrior) -> np.ndarray:
    assert prior.gaussians is not None
    factor = prior.gaussians.factor.astype(np.float64)
    return factor.T @ factor + np.diag(prior.gaussians.rest.astype(np.float64) ** 2)


def test_prior_by_hand():
    """The first coordinate is 0, 2, 4, 6: mean 3, variance (9 + 1 + 1 + 9) / 4 = 5. The second is
    0, 2, 0, 2: mean 1, variance 1. The class means are (1, 1) and (5, 1), which standardized are
    (-2, 0) / sqrt(5) and (2, 0) / sqrt(5). Around them the tokens lie at (-1, -1) and (1, 1), so
    the covariance within a class is [[1, 1], [1, 1]]; standardized, [[1/5, 1/sqrt(5)],
    [1/sqrt(5), 1]]: all of it along one direction.
    """
    prior = TokenPrior.from_statistics(statistics(TOKENS, LABELS))
    gaussians = prior.gaussians
    assert gaussians is not None
    np.testing.assert_allclose(prior.mean, [3, 1], rtol=1e-6)
    np.testing.assert_allclose(prior.spread, [ROOT_5, 1], rtol=1e-6)
    np.testing.assert_allclose(gaussians.shares, [0.5, 0.5, 0])
    expected = [[-2 / ROOT_5, 0], [2 / ROOT_5, 0], [0, 0]]
    np.testing.assert_allclose(gaussians.means, expected, rtol=1e-6, atol=1e-7)
    within = [[0.2, 1 / ROOT_5], [1 / ROOT_5, 1]]
    np.testing.assert_allclose(covariance(prior), within, atol=1e-6)
    np.testing.assert_allclose(np.abs(gaussians.factor[0]), [1 / ROOT_5, 1], atol=1e-6)


def test_without_standardizing_tokens_stay_as_they_are():
    """The means are then those of the tokens, and the covariance is [[1, 1], [1, 1]]."""
    prior = TokenPrior.from_statistics(statistics(TOKENS, LABELS), TokenScale.none(2))
    assert prior.gaussians is not None
    np.testing.assert_array_equal(prior.standardize(TOKENS), TOKENS)
    np.testing.assert_allclose(prior.gaussians.means, [[1, 1], [5, 1], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(covariance(prior), [[1, 1], [1, 1]], atol=1e-6)


def test_without_replay_there_are_no_gaussians():
    prior = TokenPrior.from_statistics(statistics(TOKENS, LABELS), replay=False)
    assert prior.gaussians is None
    np.testing.assert_allclose(prior.standardize(TOKENS)[:, 1], [-1, 1, -1, 1], rtol=1e-6)


@given(
    cuts=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    num_classes=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_split_does_not_matter(cuts, num_classes, seed):
    """Also with parts that are empty, and with classes that only one part has."""
    generator = np.random.default_rng(seed)
    tokens = generator.normal(2, 3, (40, 5))
    labels = np.sort(generator.integers(0, num_classes, 40))
    total = Statistics.empty(num_classes, 5, gram=True)
    for rows in np.split(np.arange(40), sorted(cuts)):
        total.add(statistics(tokens[rows], labels[rows], num_classes))
    found = TokenPrior.from_statistics(total).to_tensors()
    whole = TokenPrior.from_statistics(statistics(tokens, labels, num_classes)).to_tensors()
    for name, expected in whole.items():
        if name == "factor":  # an eigenvector may point either way
            found, whole = ({**t, name: t[name].T @ t[name].astype(int)} for t in (found, whole))
            expected = whole[name]
        # Sums in another order may round to the next whole number.
        step = {"factor": 60, "means": 1}.get(name, 1e-4)
        np.testing.assert_allclose(found[name], expected, rtol=2e-3, atol=step)


@pytest.mark.parametrize(
    ("counts", "share", "lacking"),
    [
        # 1/2 (0.3 + 0.1 + 0.2) = 0.3; 0.5 - 0.7 x 0.8 < 0, 0.3 - 0.7 x 0.2 = 0.16, 0.2 - 0 = 0.2.
        ((8, 2, 0, 0), 0.3, (0, 4 / 9, 5 / 9, 0)),
        # One class: 1/2 (0.5 + 0.3 + 0.2) = 0.5; 0.5 - 0.5 = 0, 0.3, 0.2.
        ((7, 0, 0, 0), 0.5, (0, 0.6, 0.4, 0)),
        # A client that joined late, with a class that nobody had: all of the whole is lacking.
        ((0, 0, 0, 9), 1.0, (0.5, 0.3, 0.2, 0)),
    ],
)
def test_shortfall_by_hand(counts, share, lacking):
    gaussians = ClassGaussians(
        shares=np.array([0.5, 0.3, 0.2, 0], np.float32),
        means=np.zeros((4, 2), np.float32),
        factor=np.zeros((2, 2), np.float32),
        rest=np.zeros(2, np.float32),
    )
    found = gaussians.shortfall(np.array(counts))
    assert found[0] == pytest.approx(share, abs=1e-7)
    np.testing.assert_allclose(found[1], lacking, atol=1e-6)


def test_equal_shares_lack_nothing():
    nothing = (np.zeros(shape, np.float32) for shape in ((3, 1), (1, 1), (1,)))
    gaussians = ClassGaussians(np.array([0.5, 0.25, 0.25], np.float32), *nothing)
    share, drawn = gaussians.shortfall(np.array([20, 10, 10]))
    assert (share, drawn.tolist()) == (0, [0.5, 0.25, 0.25])


@given(
    whole=st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(any),
    own=st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(any),
)
def test_only_what_lacks_is_drawn(whole, own):
    """The probabilities are such as numpy draws with, and 0 for a class that nobody has."""
    size = max(len(whole), len(own))
    p = np.pad(np.array(whole), (0, size - len(whole))) / sum(whole)
    counts = np.pad(np.array(own), (0, size - len(own)))
    nothing = (np.zeros(shape, np.float32) for shape in ((size, 1), (1, 1), (1,)))
    v, q = ClassGaussians(p.astype(np.float32), *nothing).shortfall(counts)
    assert 0 <= v <= 1
    assert abs(q.sum() - 1) < 1e-12
    assert (q >= 0).all()
    assert not q[p == 0].any()
    np.random.default_rng(0).choice(size, 3, p=q)
    # A class of which the client has its full share already is not made up.
    enough = (1 - v) * counts / counts.sum() > p + 1e-6
    assert not q[enough].any()


def test_virtual_tokens_have_the_class_mean_and_the_covariance():
    generator = np.random.default_rng(5)
    root = generator.normal(size=(4, 4))
    labels = generator.integers(0, 2, 4000)
    tokens = generator.normal(size=(4000, 4)) @ root.T + np.array([[0.0], [9.0]])[labels]
    prior = TokenPrior.from_statistics(statistics(tokens, labels, 2))
    gaussians = prior.gaussians
    assert gaussians is not None
    drawn = gaussians.draw(np.ones(20_000, np.int64), np.random.default_rng(1))
    assert drawn.dtype == np.float32
    own = prior.standardize(tokens.astype(np.float32))[labels == 1]
    np.testing.assert_allclose(drawn.mean(axis=0), own.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(own.T), atol=0.05)
    again = gaussians.draw(np.ones(20_000, np.int64), np.random.default_rng(1))
    assert again.tobytes() == drawn.tobytes()


@pytest.mark.parametrize("dims", [(3, 2), (3, 8, 2), (3, 6, 6, 2)])
def test_folding_is_standardizing_first(dims):
    generator = np.random.default_rng(2)
    tokens = generator.normal([5, -2, 0.1], [1, 3, 0.02], (50, 3)).astype(np.float32)
    prior = TokenPrior.from_statistics(statistics(tokens, np.zeros(50, np.int64)))
    weights = initial_weights(dims, seed=1)
    before = {name: weight.copy() for name, weight in weights.items()}
    folded = prior.fold(weights)
    assert all(weight.dtype == np.float32 for weight in folded.values())
    inside = logits(layers_of(folded), tokens)
    outside = logits(layers_of(weights), prior.standardize(tokens))
    np.testing.assert_allclose(inside, outside, atol=1e-4)
    for name, weight in before.items():
        np.testing.assert_array_equal(weights[name], weight)


def test_fold_by_hand():
    """W = (6, 4), b = 1, mean (3, 1), spread (2, 4): W / spread = (3, 1), b' = 1 - 9 - 1 = -9."""
    prior = TokenPrior(np.array([3, 1], np.float32), np.array([2, 4], np.float32))
    weights = {"fc1.weight": np.array([[6, 4]], np.float32), "fc1.bias": np.ones(1, np.float32)}
    folded = prior.fold(weights)
    np.testing.assert_array_equal(folded["fc1.weight"], [[3, 1]])
    np.testing.assert_array_equal(folded["fc1.bias"], [-9])


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("skip", [True, False])
def test_what_travels_comes_back(replay, skip):
    prior = TokenPrior.from_statistics(statistics(TOKENS, LABELS), replay=replay)
    if skip:
        prior = prior.with_head(HEAD, np.array([1, 2, 3], np.float32))
    tensors = prior.to_tensors()
    assert dict(layout_of(tensors)) == prior_layout(2, 3, replay=replay, skip=skip)
    again = TokenPrior.from_tensors(tensors)
    np.testing.assert_array_equal([again.mean, again.spread], [prior.mean, prior.spread])
    if replay:
        assert again.gaussians is not None
        assert prior.gaussians is not None
        assert again.gaussians.means.dtype == again.gaussians.factor.dtype == np.float32
        np.testing.assert_allclose(again.gaussians.means, prior.gaussians.means, atol=1 / 128)
    assert (again.head is not None) == skip
    if again.head is not None:
        assert again.head.weight.dtype == again.head.bias.dtype == np.float32


def test_a_head_by_hand():
    """Mean (3, 1), spread (2, 4): V = (1, -2) is (2, -8) for standardized tokens, and its bias 5 is
    5 + 3 - 2 = 6. The token (5, 5), standardized (1, 1), gives 2 - 8 + 6 = 0 = 5 - 10 + 5."""
    prior = TokenPrior(np.array([3, 1], np.float32), np.array([2, 4], np.float32))
    found = prior.with_head(np.array([[1, -2]], np.float32), np.array([5], np.float32))
    assert prior.head is None
    assert prior.raw_head() is None
    assert found.head is not None
    assert (found.head.weight.tolist(), found.head.bias.tolist()) == ([[2, -8]], [6])
    assert found.head.of(np.ones((1, 2), np.float32)).tolist() == [[0]]
    weight, bias = found.raw_head() or ()
    assert (weight.tolist(), bias.tolist()) == ([[1, -2]], [5])


@pytest.mark.parametrize("size", [1e5, -1e5, np.nan, np.inf])
def test_a_head_beyond_float16_is_refused(size: float):
    prior = TokenPrior.from_statistics(statistics(TOKENS, LABELS))
    weight = HEAD.copy()
    weight[1, 1] = size
    with pytest.raises(ValueError, match=r"vary too widely for a head: set 'lda-skip' to"):
        prior.with_head(weight, np.zeros(3, np.float32))


def test_what_comes_back_has_the_covariance_almost():
    """At D = 100, from 400 tokens that are correlated, at a 32nd of a deviation a number: the
    errors of 100 products of numbers near 0.1 and steps near 1 / 32 add up to less than 0.06. What
    varies in all is right but for rounding that adds to it."""
    generator = np.random.default_rng(7)
    tokens = generator.normal(size=(400, 100)) @ generator.normal(size=(100, 100)) + 30
    prior = TokenPrior.from_statistics(statistics(tokens, generator.integers(0, 3, 400)))
    exact, found = covariance(prior), covariance(TokenPrior.from_tensors(prior.to_tensors()))
    spread = np.sqrt(np.diagonal(exact))
    np.testing.assert_allclose(
        found / spread / spread[:, None], exact / spread / spread[:, None], atol=0.06
    )
    np.testing.assert_allclose(np.sqrt(np.diagonal(found)), spread, rtol=0.03)


def test_its_size_in_bytes():
    """Before it is compressed: D = 384, 10 classes: 2 x 384 + 10 + 2 numbers of 4 bytes, 10 x 384
    means and 384 deviations of 2, and 384 x 384 of 1. A head has 10 x 384 weights of 2 bytes
    and 10 biases of 4."""
    sizes = {
        name: dtype.itemsize * int(np.prod(shape))
        for name, (dtype, shape) in prior_layout(384, 10, replay=True, skip=True).items()
    }
    head = sizes.pop("head_weight") + sizes.pop("head_bias")
    assert sum(sizes.values()) == 4 * 780 + 2 * 4_224 + 147_456 == 159_024
    assert head == 2 * 3_840 + 4 * 10 == 7_720


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("constant", [0.0, 5.0, -300.0])
def test_a_coordinate_that_never_varies_is_not_blown_up(constant, dtype):
    """In float32 its variance is rounding, which must not become a spread to divide by."""
    generator = np.random.default_rng(3)
    tokens = generator.normal(size=(1000, 3)).astype(np.float32)
    tokens[:, 1] = constant + 0.1
    found = over_the_wire(statistics(tokens, generator.integers(0, 2, 1000), 2), dtype)
    prior = TokenPrior.from_statistics(found)
    assert prior.spread[1] == 1
    assert prior.gaussians is not None
    np.testing.assert_allclose(prior.standardize(tokens)[:, 1], 0, atol=1e-3)
    assert np.isfinite(prior.gaussians.factor).all()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_fewer_tokens_than_dimensions(count, dtype):
    """The covariance is singular, and with one token it is 0."""
    tokens = np.random.default_rng(count).normal(size=(count, 30)).astype(np.float32)
    found = over_the_wire(statistics(tokens, np.zeros(count, np.int64), 4), dtype)
    prior = TokenPrior.from_tensors(TokenPrior.from_statistics(found).to_tensors())
    assert prior.gaussians is not None
    drawn = prior.gaussians.draw(np.zeros(5, np.int64), np.random.default_rng(0))
    assert np.isfinite(drawn).all()
    assert np.abs(drawn).max() < 10


def test_statistics_that_no_prior_follows_from():
    empty = Statistics.empty(2, 2, gram=True)
    with pytest.raises(ValueError, match="The clients have no tokens"):
        TokenPrior.from_statistics(empty)
    with pytest.raises(ValueError, match="There is no Gram matrix"):
        TokenPrior.from_statistics(Statistics(np.array([1, 1]), np.ones((2, 2)), None))


def test_a_factor_beyond_float16_is_refused():
    """One hostile client's Gram matrix may be far from positive definite."""
    found = statistics(TOKENS, LABELS)
    assert found.gram is not None
    found.gram[1] = 1e12
    with pytest.raises(ValueError, match=r"vary too widely for virtual tokens: set 'replay' to f"):
        TokenPrior.from_statistics(found)
    assert TokenPrior.from_statistics(found, replay=False).gaussians is None


def test_class_means_beyond_float16_are_refused():
    found = statistics(TOKENS * np.float32(1e5), LABELS)
    with pytest.raises(ValueError, match="vary too widely for virtual tokens"):
        TokenPrior.from_statistics(found, TokenScale.none(2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", np.nan),
        ("spread", 0),
        ("spread", -1),
        ("spread", np.inf),
        ("mean_step", np.inf),
        ("step", np.nan),
        ("step", -0.1),
        ("mean_step", -0.1),
        ("shares", -0.1),
        ("shares", 0),
        ("shares", np.nan),
        ("shares", 7),
        ("head_weight", np.inf),
        ("head_bias", np.nan),
    ],
)
def test_a_hostile_prior_is_refused(name: str, value: float):
    prior = TokenPrior.from_statistics(statistics(TOKENS, LABELS))
    tensors: dict[str, Any] = prior.with_head(HEAD, np.zeros(3, np.float32)).to_tensors()
    tensors[name] = tensors[name].copy()
    tensors[name].reshape(-1)[0] = value
    with pytest.raises(ValueError, match="The token prior"):
        TokenPrior.from_tensors(tensors)


def test_sums_that_contradict_each_other_do_not_stop_the_server():
    """Class means at 1e4 and -1e4 without any scatter: rounding leaves eigenvalues far below 0."""
    sums = np.zeros((2, 6))
    sums[:, 0] = 500 * 1e4, -500 * 1e4
    lie = Statistics(np.array([500, 500]), sums, np.zeros(21))
    prior = TokenPrior.from_statistics(lie, TokenScale.none(6))
    assert prior.gaussians is not None
    assert np.isfinite(prior.gaussians.factor).all()
