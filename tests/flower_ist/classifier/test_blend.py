"""The blend of a net and a ridge head: probabilities by hand, and evaluation with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.classifier.blend import RidgeBlend, blended
from flower_ist.classifier.ensemble import evaluate_ensemble
from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.statistics.sums import Statistics, ridge, ridge_head, ridge_system
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut
from flower_ist.tokens.shard import open_shard
from tests.fakes.shards import BLOB_DIM


def head(weight: list[list[float]], bias: list[float], share: float) -> RidgeBlend:
    return RidgeBlend(np.array(weight, np.float32), np.array(bias, np.float32), share)


def probabilities(blend: RidgeBlend, logits: list[float], token: list[float]) -> list[float]:
    arrays = np.array([logits], np.float32), np.array([token], np.float32)
    found = blend.log_probabilities(*arrays)
    return [math.exp(p) for p in found[0].tolist()]


def test_blend_by_hand():
    """softmax(0, log 3) = (1/4, 3/4). Ridge says 0.2 x 2 + 0.3 = 0.7 and 0.3. With w = 2 the sums
    are 1.65 and 1.35, in all 3: 0.55 and 0.45; the net alone would have said the other class.
    """
    blend = head([[0.2], [-0.2]], [0.3, 0.7], share=2.0)
    found = probabilities(blend, [0.0, math.log(3)], [2.0])
    assert found == pytest.approx([0.55, 0.45], rel=1e-6)


def test_below_zero_is_almost_nothing():
    """Ridge says 1.4 and -0.4: with equal halves and w = 2 that is 3.3 and -0.3, taken as 1e-6."""
    blend = head([[0.0], [0.0]], [1.4, -0.4], share=2.0)
    found = probabilities(blend, [0.0, 0.0], [1.0])
    assert found == pytest.approx([1 - 1e-6 / 3.3, 1e-6 / 3.3], rel=1e-5)


@given(
    logits=st.lists(st.floats(-50, 50), min_size=3, max_size=3),
    token=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2),
    share=st.floats(1e-3, 100),
)
def test_probabilities_are_probabilities(logits, token, share):
    blend = head([[1, -1], [0.5, 2], [-1.5, -1]], [0.3, 0.3, 0.4], share)
    found = probabilities(blend, logits, token)
    assert sum(found) == pytest.approx(1, abs=1e-4)
    assert min(found) > 0


def test_without_a_blend_the_net_is_as_it_was():
    def net(tokens: np.ndarray) -> np.ndarray:
        return tokens

    assert blended(net, None) is net


def test_a_head_of_ridge_regression():
    found = RidgeBlend.of_head({"fc1.weight": np.eye(2), "fc1.bias": np.ones(2)}, 0.5)
    assert (found.share, found.weight.shape, found.bias.tolist()) == (0.5, (2, 2), [1, 1])


def test_a_head_has_the_order_of_a_model_file():
    """Ridge solves for the transposed weight; safetensors writes memory as it lies."""
    found = RidgeBlend.of_head(ridge_head(np.arange(12.0).reshape(4, 3)), 1.0)
    assert found.weight.flags.c_contiguous
    np.testing.assert_array_equal(found.weight, [[0, 3, 6], [1, 4, 7], [2, 5, 8]])


def test_a_class_that_nobody_has_is_never_chosen_by_ridge(blobs):
    """Its column of the ridge solution is 0, so its score is."""
    statistics = Statistics.empty(4, BLOB_DIM, gram=True)
    tokens, labels = open_shard(blobs / "client-0").batch(slice(None))
    statistics.add_tokens(tokens, labels)
    solved = ridge_head(ridge(*ridge_system(statistics), 1.0))
    blend = RidgeBlend.of_head(solved, 1.0)
    found = blend.log_probabilities(np.zeros((len(tokens), 4), np.float32), tokens)
    assert (found.argmax(axis=1) != 3).all()


def test_evaluation_with_a_blend(blobs):
    """With a net of zeros the blend's accuracy is the head's, which is far above a guess's."""
    shard = open_shard(blobs / "test")
    statistics = Statistics.empty(3, BLOB_DIM, gram=True)
    statistics.add_tokens(*open_shard(blobs / "client-0").batch(slice(None)))
    solved = ridge_head(ridge(*ridge_system(statistics), 1.0))
    zeros = {name: 0 * weight for name, weight in initial_weights([BLOB_DIM, 3], 0).items()}
    accuracy, loss = evaluate_arrays(zeros, shard, RidgeBlend.of_head(solved, 3.0))
    assert accuracy == evaluate_arrays(solved, shard)[0] > 0.7
    assert 0 < loss < evaluate_arrays(zeros, shard)[1] == pytest.approx(math.log(3))


def test_an_ensemble_with_a_blend(blobs):
    """Averaged logits are blended once: one slice that is the whole net gives the net's result."""
    dims = [BLOB_DIM, 6, 3]
    shard = open_shard(blobs / "test")
    weights, axes = initial_weights(dims, 0), mlp_axes(mlp_shapes(dims))
    whole = Cut(axes, {width: np.arange(count) for width, count in axes.widths.items()})
    blend = head(np.eye(3, BLOB_DIM).tolist(), [0.1, 0.2, 0.3], 0.5)
    found = evaluate_ensemble(weights, [whole] * 2, shard, blend)
    assert found == evaluate_arrays(weights, shard, blend)
    assert found != evaluate_arrays(weights, shard)
