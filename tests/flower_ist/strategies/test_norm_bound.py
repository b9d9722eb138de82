"""Updates that are far larger than the round's others, and counts of examples beyond belief."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flower_ist.strategies.norm_bound import update_rms
from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.submodels.axes import Axes, mlp_axes
from flower_ist.submodels.cut import Cut, Returned
from server_app.settings import Settings, SettingsError
from tests.fakes.strategies import AXES, arrays_of, configured, merged, reply


def test_size_of_an_update_by_hand():
    """One neuron of four, all its 4 weights: 3 4 0 and, on the model's scale, 48 / 4 = 12."""
    weights = {
        "fc1.weight": np.array([[1], [2], [3], [4]], np.float32),
        "fc1.bias": np.array([10, 20, 30, 40], np.float32),
        "fc2.weight": np.array([[5, 6, 7, 8]], np.float32),
        "fc2.bias": np.array([100], np.float32),
    }
    axes = mlp_axes({name: w.shape for name, w in weights.items()})
    cut = Cut(axes, {"h1": np.array([1])})
    small = cut.take(weights)
    assert update_rms(weights, Returned(cut, small, 1.0)) == 0.0
    small["fc1.weight"] += 3
    small["fc1.bias"] += 4
    small["fc2.weight"] += 48
    assert update_rms(weights, Returned(cut, small, 1.0)) == math.sqrt(169 / 4)


@pytest.mark.parametrize("neurons", [1, 3, 8])
def test_slices_of_any_size_compare(neurons):
    """A step of 0.5 on each of the model's weights is 0.5, whatever the slice and its scale."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in AXES.shapes.items()}
    cut = Cut(AXES, {"h1": np.arange(neurons), "h2": np.arange(2)})
    tensors = cut.take({name: w + np.float32(0.5) for name, w in weights.items()})
    assert update_rms(weights, Returned(cut, tensors, 1.0)) == pytest.approx(0.5)


def test_a_counter_does_not_drown_the_weights():
    """BatchNorm counts batches: 100 steps are no change of 100 in a weight."""
    weights = {"w": np.zeros((4, 2), np.float32), "steps": np.array(0)}
    axes = Axes.declare({"w": (4, 2), "steps": ()}, {"w": ("h", None)})
    cut = Cut(axes, {"h": np.arange(2)})
    tensors = {**cut.take(weights), "steps": np.array(100)}
    tensors["w"] = tensors["w"] + np.float32(3)
    assert update_rms(weights, Returned(cut, tensors, 1.0)) == 3.0


def moved(message, step: float):
    """Answer with every weight moved by a step on the slice's scale."""
    return reply(message, {n: t + np.float32(step) for n, t in arrays_of(message).items()})


def test_an_outlier_is_refused_and_its_slice_rests():
    strategy, weights, messages = configured(num_nodes=4, num_slices=4, norm_bound=3.0)
    steps = [0.01, 0.01, 0.01, 5.0]
    replies = [moved(m, s) for m, s in zip(messages, steps, strict=True)]
    found = merged(strategy, replies)
    liar = messages[3].metadata.dst_node_id
    (reason,) = strategy.last_round.refused.values()
    assert list(strategy.last_round.refused) == [liar]
    assert "more than norm_bound = 3 times the round's median of" in reason
    assert strategy.last_round.faulty == {liar}
    rested = strategy._sent[liar].indices["h1"]
    assert found["fc1.bias"][rested].tobytes() == weights["fc1.bias"][rested].tobytes()
    assert max(np.abs(found[name] - weights[name]).max() for name in found) < 0.02


def test_at_the_bound_a_reply_is_taken():
    """With one slice for all, four clients move by 1, 1, 1 and 2: the median is 1."""
    for bound, refused in ((2.01, 0), (1.99, 1)):
        strategy, _, messages = configured(num_nodes=4, num_slices=1, norm_bound=bound)
        merged(strategy, [moved(m, s) for m, s in zip(messages, (1.0, 1.0, 1.0, 2.0), strict=True)])
        assert len(strategy.last_round.refused) == refused


@pytest.mark.parametrize(
    ("bound", "steps"), [(0.0, (1, 1, 500)), (2.0, (1, 500)), (2.0, (0, 0, 1))]
)
def test_where_there_is_nothing_to_compare_with_all_are_taken(bound, steps):
    """No bound, two replies, and a median of zero."""
    strategy, _, messages = configured(num_nodes=len(steps), num_slices=1, norm_bound=bound)
    merged(strategy, [moved(m, step) for m, step in zip(messages, steps, strict=True)])
    assert strategy.last_round.refused == {}


@pytest.mark.parametrize("bound", [0.5, -1.0, math.nan, math.inf])
def test_bounds_of_no_use_are_refused(bound):
    with pytest.raises(ValueError, match="must be at least 1, or 0 for no bound"):
        ISTStrategy(AXES, norm_bound=bound)


def test_no_reply_is_of_more_than_a_hundred_million_examples():
    strategy, _, messages = configured(num_nodes=3, num_slices=1)
    counts = (10**8, 10**8 + 1, 10**30)
    replies = [
        reply(m, arrays_of(m), {"num-examples": float(n)})
        for m, n in zip(messages, counts, strict=True)
    ]
    merged(strategy, replies)
    assert list(strategy.last_round.refused.values()) == [
        "'num-examples' is 100000001.0, not between 1 and 1e+08",
        "'num-examples' is 1e+30, not between 1 and 1e+08",
    ]


def test_a_median_merge_outvotes_a_liar():
    strategy, weights, messages = configured(num_nodes=3, num_slices=1, merge_rule="median")
    replies = [moved(m, s) for m, s in zip(messages, (0.25, 0.5, 9000.0), strict=True)]
    found = merged(strategy, replies)
    np.testing.assert_allclose(found["fc1.bias"], weights["fc1.bias"] + 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"strategy": "fedavg", "norm-bound": 3.0}, "'norm-bound' is 3.0, but 'fedavg' does not"),
        ({"strategy": "ridge", "merge-rule": "median"}, "'merge-rule' is 'median', but 'ridge'"),
        ({"strategy": "fedcof", "privacy-clip": 1.0}, "'privacy-clip' is 1.0, but the sums that"),
    ],
)
def test_strategies_that_would_not_follow_a_setting_refuse_it(default_run_config, changes, text):
    with pytest.raises(SettingsError) as caught:
        Settings.from_run_config({**default_run_config, **changes})
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith(".")
