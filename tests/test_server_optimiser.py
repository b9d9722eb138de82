"""Momentum and Adam of the server: numbers by hand, and nothing moves that nobody trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from fakes import AXES, SilentGrid, arrays_of, merged, model, reply
from flwr.app import ConfigRecord

from flower_ist.axes import Axes
from flower_ist.clients import Roster
from flower_ist.server_optimiser import ServerOptimiser, trained_entries
from flower_ist.slicing import Returned
from flower_ist.strategy import SubmodelStrategy
from server_app.settings import Settings, SettingsError
from server_app.strategies import build_strategy, check_strategy

TINY = Axes.declare({"w": (4,), "shared": (1,), "count": (4,)}, {"w": ("h",), "count": ("h",)})
FIRST_TWO = [Returned({"h": np.array([0, 1])}, {}, 1.0)]
LAST = [Returned({"h": np.array([3])}, {}, 1.0)]


def tiny(*values: float, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    return {
        "w": np.array(values, dtype),
        "shared": np.zeros(1, dtype),
        "count": np.array([1, 2, 3, 4]),
    }


def stepped(
    optimiser: ServerOptimiser,
    before: dict[str, np.ndarray],
    after: dict[str, np.ndarray],
    returned: list[Returned],
) -> list[float]:
    optimiser.step(after, before, TINY, returned)
    return after["w"].tolist()


def test_momentum_by_hand():
    """beta 0.5. Neurons 0 and 1 change by 2 and -4 from 1: their moments are just that.

    Then by 1 and 0: m = 0.5 * 2 + 1 = 2 and 0.5 * -4 + 0 = -2. Neuron 1 moves although its merged
    weight did not.
    """
    optimiser = ServerOptimiser("momentum", beta_1=0.5)
    found = stepped(optimiser, tiny(1, 1, 1, 1), tiny(3, -3, 1, 1), FIRST_TWO)
    assert found == [3, -3, 1, 1]
    found = stepped(optimiser, tiny(3, -3, 1, 1), tiny(4, -3, 1, 1), FIRST_TWO)
    assert found == [5, -5, 1, 1]


def test_the_learning_rate_is_of_the_move_and_not_of_the_moment():
    """At rate 0.5: 1 + 0.5 * 2 = 2. Then d = 2, m = 0.5 * 2 + 2 = 3 and 2 + 0.5 * 3 = 3.5."""
    optimiser = ServerOptimiser("momentum", beta_1=0.5, learning_rate=0.5)
    assert stepped(optimiser, tiny(1, 0, 0, 0), tiny(3, 0, 0, 0), FIRST_TWO)[0] == 2
    assert stepped(optimiser, tiny(2, 0, 0, 0), tiny(4, 0, 0, 0), FIRST_TWO)[0] == 3.5


def test_adam_by_hand():
    """beta_1 0.5, beta_2 0.75, tau 1, eta 3; v begins at tau^2 = 1.

    d = 4: m = 2, v = 0.75 + 0.25 * 16 = 4.75, move 3 * 2 / (sqrt(4.75) + 1).
    d = 0: m = 1, v = 3.5625, move 3 * 1 / (sqrt(3.5625) + 1).
    """
    optimiser = ServerOptimiser("adam", learning_rate=3.0, beta_1=0.5, beta_2=0.75, tau=1.0)
    found = stepped(optimiser, tiny(0, 0, 0, 0), tiny(4, 0, 0, 0), FIRST_TWO)
    assert found == pytest.approx([6 / (math.sqrt(4.75) + 1), 0, 0, 0])
    found = stepped(optimiser, tiny(1, 0, 0, 0), tiny(1, 0, 0, 0), FIRST_TWO)
    assert found == pytest.approx([1 + 3 / (math.sqrt(3.5625) + 1), 0, 0, 0])


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_who_rests_keeps_weight_and_moments(kind):
    """Neuron 0 is trained, rests for three rounds, and then moves as if these had not been."""
    rested, not_rested = ServerOptimiser(kind), ServerOptimiser(kind)
    for optimiser in (rested, not_rested):
        stepped(optimiser, tiny(0, 0, 0, 0), tiny(2, 1, 0, 0), FIRST_TWO)
    for _ in range(3):
        found = stepped(rested, tiny(2, 1, 7, 0), tiny(2, 1, 7, 1), LAST)
        assert found[:3] == [2, 1, 7]
    assert stepped(rested, tiny(2, 1, 0, 0), tiny(3, 1, 0, 0), FIRST_TWO) == stepped(
        not_rested, tiny(2, 1, 0, 0), tiny(3, 1, 0, 0), FIRST_TWO
    )


def test_small_changes_of_float16_are_not_lost():
    """A change of 2^-10 times 0.1 is below float16's step at 1, but its moment is kept."""
    optimiser = ServerOptimiser("momentum")
    before, after = tiny(1, 1, 1, 1, dtype=np.float16), tiny(1, 1, 1, 1, dtype=np.float16)
    after["w"][0] += np.float16(2**-10)
    optimiser.step(after, before, TINY, FIRST_TWO)
    assert after["w"].dtype == np.float16
    assert optimiser.state()["first"]["w"].dtype == np.float32
    assert optimiser.state()["first"]["w"].tolist() == [2**-10, 0, 0, 0]


def test_whole_numbers_are_merged_as_they_are():
    optimiser = ServerOptimiser("momentum")
    after = tiny(0, 0, 0, 0)
    after["count"] += 5
    optimiser.step(after, tiny(0, 0, 0, 0), TINY, FIRST_TWO)
    assert after["count"].tolist() == [6, 7, 8, 9]
    assert optimiser.state()["first"].keys() == {"w", "shared"}


def test_trained_entries_are_those_that_any_reply_holds():
    axes = Axes.declare({"m": (3, 3), "s": (2,)}, {"m": ("a", "b")})
    returned = [
        Returned({"a": np.array([0]), "b": np.array([1, 2])}, {}, 1.0),
        Returned({"a": np.array([2]), "b": np.array([1])}, {}, 1.0),
    ]
    expected = [[False, True, True], [False, False, False], [False, True, False]]
    assert trained_entries(axes, "m", returned).tolist() == expected
    assert trained_entries(axes, "s", returned).all()
    assert not trained_entries(axes, "s", []).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sgd"}, r"no server optimiser 'sgd': choose one of momentum, adam\.$"),
        ({"learning_rate": 0.0}, "learning rate is 0.0, but must be above 0 and finite"),
        ({"tau": math.nan}, "tau is nan, but must be above 0"),
        ({"beta_1": 1.0}, "beta 1 is 1.0, but must be at least 0 and below 1"),
        ({"beta_2": -0.1}, "beta 2 is -0.1"),
    ],
)
def test_settings_of_no_use_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ServerOptimiser(**{"kind": "adam", **options})


def quick(**options: Any) -> SubmodelStrategy:
    few = {"min_train_nodes": 1, "min_available_nodes": 1, "packed": False}
    return SubmodelStrategy(AXES, num_slices=2, **few, **options)


def shifted(strategy: SubmodelStrategy, shift: float) -> dict[str, np.ndarray]:
    """Run round 1 with two clients that both add ``shift`` to what they get."""
    messages = list(strategy.configure_train(1, model()[1], ConfigRecord(), SilentGrid(2)))
    trained = [{n: a + np.float32(shift) for n, a in arrays_of(m).items()} for m in messages]
    return merged(strategy, [reply(m, t) for m, t in zip(messages, trained, strict=True)])


def test_a_strategy_hands_its_merged_change_to_the_optimiser():
    """A first round of momentum at rate 0.5 goes half of the way that it goes without."""
    start = model()[0]
    plain = shifted(quick(), 1.0)
    halved = shifted(quick(server_optimiser=ServerOptimiser("momentum", learning_rate=0.5)), 1.0)
    for name, before in start.items():
        np.testing.assert_allclose(halved[name], (before + plain[name]) / 2, rtol=1e-5, atol=1e-6)
        assert (plain[name] != before).any()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"submodel-optimiser": "momentum", "server-momentum": 0.25}, ("momentum", 1.0, 0.25)),
        ({"submodel-optimiser": "adam", "server-momentum": 0.25}, ("adam", 0.03, 0.9)),
        ({"submodel-optimiser": "adam", "server-learning-rate": 0.5}, ("adam", 0.5, 0.9)),
    ],
)
def test_settings_make_the_optimiser(default_run_config, changes, expected):
    settings = Settings.from_run_config({**default_run_config, **changes})
    strategy = build_strategy(settings, [12, 8, 3], Roster())
    assert isinstance(strategy, SubmodelStrategy)
    optimiser = strategy.server_optimiser
    assert optimiser is not None
    assert (optimiser.kind, optimiser.learning_rate, optimiser.beta_1) == expected


def test_other_strategies_refuse_the_setting(default_run_config):
    changes = {"strategy": "fedavg", "submodel-optimiser": "adam"}
    settings = Settings.from_run_config({**default_run_config, **changes})
    with pytest.raises(SettingsError, match="'submodel-optimiser' is 'adam', but 'fedavg' does no"):
        check_strategy(settings)


def test_the_optimiser_adds_no_bytes():
    def arrays(strategy: SubmodelStrategy) -> list[dict[str, tuple[int, ...]]]:
        messages = strategy.configure_train(1, model()[1], ConfigRecord(), SilentGrid(2))
        return [{name: a.shape for name, a in arrays_of(message).items()} for message in messages]

    assert arrays(quick(server_optimiser=ServerOptimiser("adam"))) == arrays(quick())


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_running_statistics_are_merged_as_they_are(kind):
    """A variance that falls from 9 to 1 to 0.5 would be carried on: to 1 - 7.7 by momentum 0.9."""
    shapes = {"w": (2,), "norm.running_var": (2,), "norm.running_mean": (2,)}
    axes = Axes.declare(shapes, dict.fromkeys(shapes, ("h",)))
    optimiser = ServerOptimiser(kind)
    part = {"h": np.arange(2)}
    tensors = {name: np.full(2, 9.0) for name in shapes}
    for value in (1.0, 0.5):
        before = {name: tensor.copy() for name, tensor in tensors.items()}
        tensors = {name: np.full(2, value) for name in shapes}
        optimiser.step(tensors, before, axes, [Returned(part, {}, 1.0)])
    assert (tensors["w"] != 0.5).all()
    for name in ("norm.running_var", "norm.running_mean"):
        np.testing.assert_array_equal(tensors[name], [0.5, 0.5])
