"""The fixed head inside a net: logits by hand, and evaluation with it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flower_ist.classifier.ensemble import ensemble_of
from flower_ist.classifier.evaluate import evaluate_arrays, evaluate_model
from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.classifier.skip import LinearSkip, softmax, with_skip
from flower_ist.statistics.lda import lda_heads
from flower_ist.statistics.prior import TokenPrior
from flower_ist.statistics.ridge import ridge_head
from flower_ist.statistics.sums import Statistics
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut
from flower_ist.tokens.shard import open_shard
from tests.fakes.shards import BLOB_DIM


def skip_of(weight: list[list[float]], bias: list[float]) -> LinearSkip:
    return LinearSkip(np.array(weight, np.float32), np.array(bias, np.float32))


def test_logits_by_hand():
    """The net says (0, log 3), the skip 2 x 2 - 3 = 1 and -1: (1, log 3 - 1)."""
    both = with_skip(lambda tokens: np.array([[0.0, math.log(3)]]), skip_of([[2], [-1]], [-3, 1]))
    np.testing.assert_allclose(both(np.array([[2.0]])), [[1, math.log(3) - 1]], rtol=1e-6)


def test_half_of_the_log_probabilities_is_added():
    """Two Gaussians with means -1 and 1, variance 1, equal shares: log p(1 | x) / p(0 | x) = 2 x.

    Tokens at -2, 0 and 0, 2 have these means and this variance.
    """
    statistics = Statistics.empty(2, 1, gram=True)
    statistics.add_tokens(np.array([[-2.0], [0.0], [0.0], [2.0]]), np.array([0, 0, 1, 1]))
    skip = LinearSkip.of_head(lda_heads(statistics, [1e-9])[0])
    found = softmax(skip.of(np.array([[3.0]])))[0, 1]
    assert found == pytest.approx(1 / (1 + math.exp(-3)), rel=1e-6)


def test_without_a_skip_the_net_is_as_it_was():
    def net(tokens: np.ndarray) -> np.ndarray:
        return tokens

    assert with_skip(net, None) is net


def test_a_head_has_the_order_of_a_model_file():
    """Ridge solves for the transposed weight; safetensors writes memory as it lies."""
    found = LinearSkip.of_head(ridge_head(np.arange(12.0).reshape(4, 3)))
    assert found.weight.flags.c_contiguous
    np.testing.assert_allclose(found.weight, [[0, 1.5, 3], [0.5, 2, 3.5], [1, 2.5, 4]], rtol=1e-6)


def test_clients_get_the_same_head_for_standardized_tokens():
    """W z + b with z = (x - 1) / 2 on the client is the server's head of x, up to float16."""
    skip = skip_of([[1, -2], [0.5, 3], [2, 2]], [0.1, 0.2, 0.3])
    mean, spread = np.full(2, 1, np.float32), np.full(2, 2, np.float32)
    prior = TokenPrior(mean, spread).with_head(skip.weight, skip.bias)
    tokens = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    assert prior.head is not None
    on_client = prior.head.of((tokens - mean) / spread)
    np.testing.assert_allclose(on_client.T, skip.of(tokens), rtol=1e-5, atol=1e-5)
    with_features = np.concatenate([(tokens - mean) / spread, np.ones((5, 4), np.float32)], axis=1)
    np.testing.assert_array_equal(prior.head.of(with_features), on_client)
    raw = prior.raw_head()
    assert raw is not None
    np.testing.assert_allclose(raw[0], skip.weight, rtol=1e-6)
    np.testing.assert_allclose(raw[1], skip.bias, rtol=1e-5)
    travelled = TokenPrior.from_tensors(prior.to_tensors())
    assert travelled.head is not None
    np.testing.assert_allclose(travelled.head.weight, prior.head.weight, rtol=1e-3)


def test_a_class_that_nobody_has_is_never_chosen(blobs):
    statistics = Statistics.empty(4, BLOB_DIM, gram=True)
    tokens, labels = open_shard(blobs / "client-0").batch(slice(None))
    statistics.add_tokens(tokens, labels)
    skip = LinearSkip.of_head(lda_heads(statistics, [1.0])[0])
    assert (skip.of(tokens).argmax(axis=1) != 3).all()


def test_evaluation_with_a_skip(blobs):
    """With a net of zeros the accuracy is the head's, which is far above a guess's."""
    shard = open_shard(blobs / "test")
    statistics = Statistics.empty(3, BLOB_DIM, gram=True)
    statistics.add_tokens(*open_shard(blobs / "client-0").batch(slice(None)))
    solved = lda_heads(statistics, [1.0])[0]
    zeros = {name: 0 * weight for name, weight in initial_weights([BLOB_DIM, 3], 0).items()}
    accuracy, loss = evaluate_arrays(zeros, shard, LinearSkip.of_head(solved))
    assert accuracy == evaluate_arrays(solved, shard)[0] > 0.7
    assert 0 < loss < evaluate_arrays(zeros, shard)[1] == pytest.approx(math.log(3))


def test_an_ensemble_with_a_skip(blobs):
    """It is added once to averaged logits: one slice that is the whole net gives its result."""
    dims = [BLOB_DIM, 6, 3]
    shard = open_shard(blobs / "test")
    weights, axes = initial_weights(dims, 0), mlp_axes(mlp_shapes(dims))
    whole = Cut(axes, {width: np.arange(count) for width, count in axes.widths.items()})
    skip = skip_of(np.eye(3, BLOB_DIM).tolist(), [0.1, 0.2, 0.3])
    found = evaluate_model(with_skip(ensemble_of(weights, [whole] * 2), skip), shard)
    assert found == evaluate_arrays(weights, shard, skip)
    assert found != evaluate_arrays(weights, shard)
