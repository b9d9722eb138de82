"""Random features: by hand, from the seed alone, and folded into an ordinary MLP."""

from __future__ import annotations

import numpy as np
import pytest

from flower_ist.classifier.features import RandomFeatures
from flower_ist.errors import ArgumentError


def test_features_by_hand():
    features = RandomFeatures(
        np.array([[1, -1], [2, 0]], np.float32), np.array([0, -1], np.float32)
    )
    tokens = np.array([[3, 1], [0, 2]], np.float32)
    np.testing.assert_array_equal(features.of(tokens), [[3, 1, 2, 5], [0, 2, 0, 0]])
    assert features.dim == 4


def test_the_seed_alone_decides_them():
    one, same, other = (RandomFeatures.draw(seed, 8, 5) for seed in (1, 1, 2))
    assert one.weight.tobytes() == same.weight.tobytes()
    assert one.bias.tobytes() == same.bias.tobytes()
    assert not np.array_equal(one.weight, other.weight)
    assert (one.weight.dtype, one.weight.shape) == (np.float32, (8, 5))


def test_their_spread_is_that_of_the_tokens():
    """A x has variance |x|^2 / D, which is 1 for standardized tokens."""
    features = RandomFeatures.draw(0, 4000, 50)
    tokens = np.random.default_rng(0).normal(size=(1, 50)).astype(np.float32)
    spread = (tokens @ features.weight.T).std()
    assert spread == pytest.approx(np.sqrt((tokens**2).mean()), rel=0.05)
    assert np.abs(features.bias).max() <= 1


def test_a_head_on_features_is_an_mlp():
    generator = np.random.default_rng(0)
    features = RandomFeatures.draw(0, 7, 5)
    head = {
        "fc1.weight": generator.normal(size=(3, 12)).astype(np.float32),
        "fc1.bias": generator.normal(size=3).astype(np.float32),
    }
    tokens = generator.normal(size=(20, 5)).astype(np.float32)
    mlp = features.fold(head)
    hidden = np.maximum(tokens @ mlp["fc1.weight"].T + mlp["fc1.bias"], 0)
    folded = hidden @ mlp["fc2.weight"].T + mlp["fc2.bias"]
    direct = features.of(tokens) @ head["fc1.weight"].T + head["fc1.bias"]
    np.testing.assert_allclose(folded, direct, rtol=1e-4, atol=1e-5)


def test_no_features_are_refused():
    with pytest.raises(ArgumentError, match="must be above 0, not 0"):
        RandomFeatures.draw(0, 0, 5)
