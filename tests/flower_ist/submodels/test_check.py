"""Models that slices cannot train are refused before a round, and honest ones pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord

from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.submodels.axes import Axes
from flower_ist.submodels.check import ModelError, check_model
from tests.fakes.strategies import SilentGrid, arrays_of, configured, merged, reply

SHAPES = {"embed": (5, 4), "head": (5, 4), "bias": (4,), "norm": (4,), "steps": ()}
LABELS = {"embed": (None, "h"), "head": (None, "h"), "bias": ("h",), "norm": ("h",)}


def model() -> dict[str, np.ndarray]:
    """A tied embedding, two constant vectors and a counter."""
    embed = np.arange(20, dtype=np.float32).reshape(5, 4)
    ones = np.ones(4, np.float32)
    return {
        "embed": embed,
        "head": embed.copy(),
        "bias": ones,
        "norm": ones.copy(),
        "steps": np.array(10**6),
    }


def axes(**summed: tuple[int, ...]) -> Axes:
    return Axes.declare(SHAPES, LABELS, summed)


def test_tied_weights_must_be_scaled_alike():
    with pytest.raises(ModelError, match="'embed' and 'head' hold the same values, as tied"):
        check_model(model(), axes(embed=()), 1e4, scaled=True)
    check_model(model(), axes(embed=(), head=()), 1e4, scaled=True)
    check_model(model(), axes(embed=()), 1e4, scaled=False)
    check_model(model() | {"head": model()["head"] + 1}, axes(embed=()), 1e4, scaled=True)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (np.full((5, 4), 10_001, np.float32), "holds 1e.04, but replies with values above max_we"),
        (np.full((5, 4), -np.inf, np.float32), "holds inf, but"),
        (np.full((5, 4), np.nan, np.float32), "holds nan, but"),
        (np.zeros((5, 4), np.complex64), "is complex64: only real numbers"),
    ],
)
def test_what_no_reply_could_bring_back_is_refused(tensor: np.ndarray, reason: str):
    with pytest.raises(ModelError, match=f"'head'.*{reason}") as caught:
        check_model(model() | {"head": tensor}, axes(), 1e4, scaled=True)
    assert "\n" not in str(caught.value)


def test_a_strategy_checks_the_model_before_it_is_sent():
    strategy = ISTStrategy(axes(embed=()), num_slices=2, min_train_nodes=1, min_available_nodes=1)
    record = ArrayRecord({name: Array(tensor) for name, tensor in model().items()})
    with pytest.raises(ModelError, match="as tied weights do"):
        strategy.configure_train(1, record, ConfigRecord(), SilentGrid(2))


def test_max_weight_is_on_the_models_own_scale():
    """At K = 2 a summed weight of 6 travels as 12: with max_weight 10 it is no fault, 11 is one."""
    strategy, _, messages = configured(num_nodes=2, num_slices=2, max_weight=10.0)
    sixes, elevens = (arrays_of(message) for message in messages)
    sixes["fc3.weight"] = np.full_like(sixes["fc3.weight"], 12)
    elevens["fc3.weight"] = np.full_like(elevens["fc3.weight"], 22)
    replies = [reply(m, a) for m, a in zip(messages, (sixes, elevens), strict=True)]
    merged(strategy, replies)
    (reason,) = strategy.last_round.refused.values()
    assert reason == "'fc3.weight' holds a weight of 11, above max_weight = 10"


@pytest.mark.parametrize(("step", "refused"), [(10**6, 0), (10**6 + 1, 1), (-(2**62), 1)])
def test_whole_numbers_cannot_run_away(step: int, refused: int):
    cut = Axes.declare({"w": (4, 2), "steps": ()}, {"w": ("h", None)})
    weights = {"w": np.ones((4, 2), np.float32), "steps": np.array(7)}
    few: dict[str, Any] = {"min_train_nodes": 1, "min_available_nodes": 1}
    strategy = ISTStrategy(cut, num_slices=1, **few)
    record = ArrayRecord({name: Array(tensor) for name, tensor in weights.items()})
    messages = list(strategy.configure_train(1, record, ConfigRecord(), SilentGrid(2)))
    lies = [0, step]
    replies = [
        reply(message, weights | {"steps": weights["steps"] + lie})
        for message, lie in zip(messages, lies, strict=True)
    ]
    found, _ = strategy.aggregate_train(1, replies)
    assert len(strategy.last_round.refused) == refused
    assert found is not None
    assert found["steps"].numpy() == (7 if refused else 7 + 10**6 // 2)
