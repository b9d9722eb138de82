"""Schedules in whole runs: what the clients are really sent, and that a resumed run is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.inprocess import InProcessGrid
from flower_ist.runlog import read_run
from flower_ist.wire import LAYOUT_KEY, layout_from_text
from server_app.app import app as server_app
from server_app.schedules import scheduled
from server_app.settings import Settings, SettingsError
from server_app.strategies import check_strategy

MakeConfig = Callable[..., dict[str, Any]]


class WatchingGrid(InProcessGrid):
    """A grid that keeps what train messages say, and may stop the server before a round's merge."""

    stop_in = 0

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(client_app, 4, config)
        self.sent: list[tuple[int, int, float]] = []
        self.neurons: list[tuple[int, int]] = []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        messages = list(messages)
        rounds = [self._note(m) for m in messages if m.metadata.message_type == "train"]
        replies = list(super().send_and_receive(messages, timeout=timeout))
        if self.stop_in in rounds:
            raise InterruptedError("the power is gone")
        return replies

    def _note(self, message: Message) -> int:
        config: Any = message.content.config_records["config"]
        server_round = int(config["server-round"])
        self.sent.append((server_round, config["local-steps"], config["learning-rate"]))
        if LAYOUT_KEY in config:
            _, first_shape = next(iter(layout_from_text(config[LAYOUT_KEY]).values()))
            self.neurons.append((server_round, first_shape[0]))
        return server_round


def run(config: dict[str, Any], stop_in: int = 0) -> WatchingGrid:
    grid = WatchingGrid(config)
    grid.stop_in = stop_in
    context = Context(1, 1, {}, RecordDict(), config)
    if stop_in:
        with pytest.raises(InterruptedError):
            server_app(grid, context)
    else:
        server_app(grid, context)
    return grid


def bits(config: dict[str, Any]) -> dict[str, bytes]:
    file = Path(config["output-dir"]) / "model.safetensors"
    return {name: weights.tobytes() for name, weights in load_file(file).items()}


@pytest.fixture
def small(blob_config: MakeConfig) -> MakeConfig:
    """Make configs of five quick rounds of four clients."""
    options = {"num_rounds": 5, "local_steps": 3, "batch_size": 4, "hidden_width": 8}
    return lambda **changes: blob_config(**{**options, **changes})


SCHEDULES = {"steps_schedule": "4,2,1", "final_learning_rate": 0.002, "learning_rate": 0.01}
# Five rounds in three stretches are 2, 2 and 1; the rates are .002 + .008 (1 + cos) / 2.
EXPECTED = [(1, 4, 0.01), (2, 4, 0.0088284), (3, 2, 0.006), (4, 2, 0.0031716), (5, 1, 0.002)]


@pytest.mark.parametrize("strategy", ["ist", "fedavg", "fedadam", "fedprox"])
def test_every_client_is_sent_the_rounds_steps_and_rate(small: MakeConfig, strategy: str) -> None:
    config = small(strategy=strategy, **SCHEDULES)
    grid = run(config)
    expected = [line for line in EXPECTED for _ in range(4)]
    assert [line[:2] for line in grid.sent] == [line[:2] for line in expected]
    assert [line[2] for line in grid.sent] == pytest.approx([r for *_, r in expected], abs=1e-7)
    steps = [line["local_steps"] for line in read_run(Path(config["output-dir"]))[1:]]
    assert steps == [4, 4, 2, 2, 1]


def test_slices_grow(small: MakeConfig) -> None:
    """8 neurons in 8, 4 and 2 slices are 1, 2 and 4 a slice; of 8 slices 4 rest, with 4 clients."""
    config = small(slices_schedule="8,4,2")
    grid = run(config)
    assert grid.neurons == [(r, n) for r, n in enumerate((1, 1, 2, 2, 4), 1) for _ in "1234"]
    assert {line[1:] for line in grid.sent} == {(3, 0.01)}


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "ist", "slices_schedule": "4,2", **SCHEDULES},
        {"strategy": "fedavg", **SCHEDULES},
    ],
    ids=["ist", "fedavg"],
)
def test_a_resumed_run_is_the_same(small: MakeConfig, options: dict[str, Any]) -> None:
    whole, config = small(**options), small(**options)
    expected = run(whole)
    before = run(config, stop_in=4)
    after = run({**config, "resume": True})
    # Round 4 was sent, but not merged: it is sent once more.
    assert before.sent[:12] + after.sent == expected.sent
    assert before.neurons[:12] + after.neurons == expected.neurons
    assert bits(config) == bits(whole)


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_schedule_that_changes_nothing_gives_the_same_bits(small: MakeConfig, strategy) -> None:
    plain = small(strategy=strategy, num_slices=4 * (strategy == "ist"))
    slices = {"slices_schedule": "4"} if strategy == "ist" else {}
    flat = small(strategy=strategy, steps_schedule="3,3", final_learning_rate=0.01, **slices)
    assert run(plain).sent == run(flat).sent == [(r, 3, 0.01) for r in range(1, 6) for _ in "1234"]
    assert bits(plain) == bits(flat)


def test_without_a_schedule_nothing_is_wrapped(default_run_config: dict[str, Any]) -> None:
    strategy = FedAvg()
    assert scheduled(strategy, Settings.from_run_config(default_run_config)) is strategy


REFUSED = [
    (
        {"final-learning-rate": 0.1},
        "'final-learning-rate' is 0.1, but must be at least 0 and at mo",
    ),
    ({"final-learning-rate": -0.1}, "'final-learning-rate' is -0.1"),
    ({"final-learning-rate": float("nan")}, "'final-learning-rate' is nan"),
    ({"steps-schedule": "4;2"}, "'steps-schedule' must be whole numbers with commas between them"),
    ({"steps-schedule": "4,2.5"}, "'steps-schedule' must be whole numbers"),
    ({"steps-schedule": "4,0"}, "'steps-schedule' is '4,0', but each number must be at least 1"),
    ({"steps-schedule": "3,2,1", "num-rounds": 2}, "'3,2,1', but 'num-rounds' is 2: give at most"),
    ({"slices-schedule": "-4"}, "'slices-schedule' is '-4', but each number must be at least 1"),
    ({"slices-schedule": "2000,2"}, "'slices-schedule' is '2000,2', but 'hidden-width' has only 1"),
    ({"slices-schedule": "4", "num-slices": 2}, "'slices-schedule' and 'num-slices' are both set"),
    ({"slices-schedule": "4", "capacities": "1"}, "'slices-schedule' and 'capacities' are both"),
    ({"slices-schedule": "4,2", "strategy": "fedavg"}, "one of: ist, ist-balanced"),
    ({"slices-schedule": "4,2", "strategy": "ist-fixed"}, "'ist-fixed' has no slices that could"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_schedules_of_no_use_are_refused(default_run_config, changes, message) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        check_strategy(Settings.from_run_config({**default_run_config, **changes}))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
