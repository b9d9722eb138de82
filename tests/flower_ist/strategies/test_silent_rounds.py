"""Devices that fall asleep in a round: it changes nothing, and the run goes on when they wake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.serverapp.strategy import strategy_utils
from safetensors.numpy import load_file

from client_app.app import app as real_client
from flower_ist.grids import clients
from flower_ist.grids.clients import TooFewClientsError
from flower_ist.runs.log import read_run
from flower_ist.strategies import silent_rounds
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.strategies.silent_rounds import SilentRounds
from server_app.app import app as server
from tests.fakes.faulty import DutyGrid, GridClock

MakeConfig = Callable[..., dict[str, Any]]
ALONE = {"standardize": False, "replay": False, "lda_skip": False}


class QuickClock(GridClock):
    """Fifty seconds in the place of each that somebody waits for nodes."""

    def sleep(self, seconds: float) -> None:
        super().sleep(50 * seconds)


def grid_of(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, training_seconds: float
) -> DutyGrid:
    """Three clients that are awake for 250 s of each hour and train for so long in a round."""
    grid = DutyGrid(real_client, 3, config)
    grid.awake, grid.period = 250.0, 3600.0

    def delay(message: Message) -> float:
        return training_seconds if message.metadata.message_type == "train" else 1.0

    grid.delay = delay
    clock = QuickClock(grid)
    monkeypatch.setattr(clients, "time", clock)
    monkeypatch.setattr(silent_rounds, "time", clock)
    monkeypatch.setattr(strategy_utils, "sleep", clock.sleep)  # Flower's own wait for nodes
    return grid


def settings(blob_config: MakeConfig, **changes: Any) -> dict[str, Any]:
    few = {"min_train_nodes": 3, "min_available_nodes": 3, "num_slices": 0}
    return blob_config(**{**few, **ALONE, **changes})


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_round_in_which_all_fall_asleep_is_waited_out(
    strategy: str, blob_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds fit into a duty. Each third one is lost, and costs neither model nor run."""
    config = settings(blob_config, strategy=strategy, num_rounds=7, node_timeout=3700.0)
    grid = grid_of(config, monkeypatch, training_seconds=100.0)
    server(grid, Context(1, 1, {}, RecordDict(), config))
    rounds = read_run(Path(config["output-dir"]))
    assert [line["clients_replied"] for line in rounds] == [0, 3, 3, 0, 3, 3, 0, 3]
    assert 7200 < grid.now < 7400
    for before, lost in ((rounds[2], rounds[3]), (rounds[5], rounds[6])):
        assert (lost["accuracy"], lost["loss"]) == (before["accuracy"], before["loss"])
        assert (lost["clients_failed"], lost["coverage"]) == (3, 0.0)
        assert lost["wire_bytes_down"] > 0 == lost["wire_bytes_up"]
    # The first round of the next duty learns from the model of the last.
    assert rounds[4]["loss"] != rounds[3]["loss"]
    assert load_file(Path(config["output-dir"]) / "model.safetensors")


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_duty_that_is_too_short_for_a_round_ends_the_run(
    strategy: str, blob_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 s of training in 250: silent at 250 s and, 4,000 s after the run began, for good."""
    config = settings(blob_config, strategy=strategy, num_rounds=9, node_timeout=4000.0)
    grid = grid_of(config, monkeypatch, training_seconds=300.0)
    with pytest.raises(TrainingFailedError, match=r"Round 3: .* of 3 .*Node Unavailable"):
        server(grid, Context(1, 1, {}, RecordDict(), config))
    assert grid.now == 7450.0


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_run_in_which_nobody_trained_does_not_end_as_if_it_had(
    strategy: str, blob_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 s of training in 250, and two rounds: both are waited out."""
    config = settings(blob_config, strategy=strategy, num_rounds=2, node_timeout=9000.0)
    grid = grid_of(config, monkeypatch, training_seconds=300.0)
    with pytest.raises(TrainingFailedError, match="None of 2 rounds had enough replies"):
        server(grid, Context(1, 1, {}, RecordDict(), config))


def test_nobody_waits_for_longer_than_the_setting(
    blob_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(blob_config, num_rounds=9, node_timeout=600.0)
    grid = grid_of(config, monkeypatch, training_seconds=100.0)
    with pytest.raises(TooFewClientsError, match="0 are connected after 600 s"):
        server(grid, Context(1, 1, {}, RecordDict(), config))


def test_with_the_default_a_silent_round_ends_the_run(
    blob_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 s are less than a round takes."""
    config = settings(blob_config, num_rounds=9, node_timeout=30.0)
    grid = grid_of(config, monkeypatch, training_seconds=200.0)
    with pytest.raises(TrainingFailedError, match="Round 2: 0 of 3 replies were good"):
        server(grid, Context(1, 1, {}, RecordDict(), config))


def test_lost_rounds_do_not_count_for_early_stopping(
    blob_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(blob_config, num_rounds=5, node_timeout=3700.0, patience=1)
    grid = grid_of(config, monkeypatch, training_seconds=200.0)
    server(grid, Context(1, 1, {}, RecordDict(), config))
    rounds = read_run(Path(config["output-dir"]))
    assert [line["clients_replied"] for line in rounds][:4] == [0, 3, 0, 3]
    assert "stopped" not in rounds[2]


@pytest.mark.parametrize(
    ("good", "silent", "seconds", "waits"),
    [
        (2, 1, 50.0, False),  # enough replies
        (1, 1, 50.0, True),
        (0, 2, 50.0, True),
        (1, 0, 50.0, False),  # the others have failed, which time does not cure
        (0, 3, 101.0, False),  # too long ago
    ],
)
def test_who_is_waited_for(
    good: int, silent: int, seconds: float, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(silent_rounds, "time", clock)
    rounds = SilentRounds(100.0)
    rounds.begin()
    clock.now += 70.0
    assert not rounds.waits(1, good=2, needed=2, silent=0)
    rounds.begin()
    clock.now += seconds
    assert rounds.waits(2, good, 2, silent) is waits
