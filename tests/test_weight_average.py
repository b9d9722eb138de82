"""The mean of the last rounds' models: numbers by hand, in a run, and through a stop and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.checkpoint import Checkpoints
from flower_ist.evaluation import evaluate_arrays
from flower_ist.inprocess import InProcessGrid, run_in_process
from flower_ist.runlog import read_run
from flower_ist.tokens import open_shard
from flower_ist.weight_average import WeightAverage
from server_app.app import app as server_app


def mean_of(average: WeightAverage, *values: float) -> list[float]:
    """Add one-weight models and return the mean after each."""
    found = []
    for value in values:
        average.add({"w": np.array([value], np.float64)})
        found.append(average.mean()["w"].item())
    return found


def test_three_rounds_by_hand():
    """n = 3: a = 1/2. 8; then (4 + 8/2) / 1.5 = 16/3; then (1 + 4/2 + 8/4) / 1.75 = 20/7."""
    assert mean_of(WeightAverage(3), 8, 4, 1) == pytest.approx([8, 16 / 3, 20 / 7])


def test_one_round_is_the_last_one_bit_for_bit():
    values = [0.1, -0.0, 1e30, 0.3]
    assert repr(mean_of(WeightAverage(1), *values)) == repr(values)


@given(st.integers(2, 50))
def test_its_mean_age_is_that_of_the_plain_mean(rounds):
    """With each round's number as its weight the mean lags by (n - 1) / 2 rounds in the end."""
    length = 40 * rounds
    found = mean_of(WeightAverage(rounds), *range(length))[-1]
    assert length - 1 - found == pytest.approx((rounds - 1) / 2)


def test_a_model_that_stays_keeps_its_bits_and_dtypes():
    model = {"h": np.array([0.1, -3.0], np.float16), "n": np.array([7]), "s": np.float32(0.3)}
    average = WeightAverage(5)
    for _ in range(7):
        average.add(model)
    for name, array in average.mean().items():
        assert array.dtype == model[name].dtype
        assert array.tobytes() == model[name].tobytes()


def test_whole_numbers_are_the_last_rounds():
    average = WeightAverage(5)
    average.add({"n": np.array([1])})
    average.add({"n": np.array([4])})
    assert average.mean()["n"].tolist() == [4]


def test_it_keeps_no_hold_of_what_it_was_given():
    average = WeightAverage(5)
    given_to_it = {"w": np.array([1.0])}
    average.add(given_to_it)
    given_to_it["w"] += 1
    assert average.mean()["w"].tolist() == [1.0]


def test_its_state_makes_another_one_go_on_the_same():
    first, second = WeightAverage(4), WeightAverage(4)
    mean_of(first, 0.1, 0.7, -0.3)
    second.load_state(first.state())
    assert mean_of(second, 0.2, 0.9) == mean_of(first, 0.2, 0.9)


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="over 0 rounds, but must be over at least 1"):
        WeightAverage(0)


def run(config: dict[str, Any]) -> Path:
    run_in_process(server_app, client_app, 4, config)
    return Path(config["output-dir"])


def saved(folder: Path) -> dict[str, bytes]:
    return {n: w.tobytes() for n, w in load_file(folder / "model.safetensors").items()}


@pytest.fixture
def small(blob_config):
    """Make configs of four quick rounds."""
    options = {"num_rounds": 4, "local_steps": 2, "batch_size": 4, "hidden_width": 8}
    plain = {"standardise": False, "replay": False, "ridge_blend": 0.0}
    return lambda **changes: blob_config(**{**options, **plain, **changes})


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_run_evaluates_and_saves_the_mean_but_trains_the_model(small, strategy):
    """The checkpoints hold what is trained; the model is their mean, added up here by hand."""
    config = small(strategy=strategy, average_rounds=3, keep_checkpoints=9)
    plain, folder = run(small(strategy=strategy, keep_checkpoints=9)), run(config)
    trained = load_file(folder / "checkpoints" / "round-000004.safetensors")
    counts = np.array([0.125, 0.25, 0.5, 1.0]) / 1.875
    expected = {
        name: np.zeros_like(w) for name, w in load_file(plain / "model.safetensors").items()
    }
    for count, file in zip(counts, Checkpoints(folder).files()[1:], strict=True):
        for name in expected:
            expected[name] += load_file(file)[f"weights/{name}"] * np.float32(count)
    found = load_file(folder / "model.safetensors")
    for name, weight in expected.items():
        np.testing.assert_allclose(found[name], weight, rtol=1e-4, atol=1e-6)
    assert {n: trained[f"weights/{n}"].tobytes() for n in expected} == saved(plain)
    assert saved(plain) != saved(folder)
    line = read_run(folder)[-1]
    shard = open_shard(Path(config["data-dir"]) / "test")
    assert (line["accuracy"], line["loss"]) == pytest.approx(evaluate_arrays(found, shard))


class StoppedError(RuntimeError):
    """The server stops here."""


class StoppingGrid(InProcessGrid):
    """A grid whose server is stopped when round 3 is sent."""

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        configs = [m.content.config_records.get("config", {}) for m in messages]
        if any(config.get("server-round") == 3 for config in configs):
            raise StoppedError("the power is gone")
        return super().send_and_receive(messages, timeout=timeout)


@pytest.mark.parametrize("optimiser", ["momentum", "adam"])
def test_a_run_with_both_goes_on_to_the_same_bits(small, optimiser):
    options = {"submodel_optimiser": optimiser, "average_rounds": 3}
    expected = run(small(**options))
    config = small(**options)
    grid = StoppingGrid(client_app, 4, config)
    with pytest.raises(StoppedError):
        server_app(grid, Context(1, 1, {}, RecordDict(), config))
    found = run({**config, "resume": True})
    assert saved(found) == saved(expected)
    assert saved(found) != saved(run(small(average_rounds=3)))
    for ours, theirs in zip(read_run(found), read_run(expected), strict=True):
        for field in ("round", "accuracy", "loss", "coverage"):
            assert ours[field] == theirs[field]
    last = [Checkpoints(folder).last() for folder in (found, expected)]
    assert last[0] is not None
    assert last[1] is not None
    assert repr(last[0].strategy) == repr(last[1].strategy)
    assert repr(last[0].average) == repr(last[1].average)


def test_both_are_off_by_default(small):
    checkpoint = Checkpoints(run(small())).last()
    assert checkpoint is not None
    assert checkpoint.strategy["server_optimiser"] is None
    assert checkpoint.average == {}
