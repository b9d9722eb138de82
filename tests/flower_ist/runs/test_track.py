"""Trackers: the numbers that arrive are those of the log, each round once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flower_ist.cli import app
from flower_ist.runs import track as tracking
from flower_ist.runs.log import RUN_LOG, RunLogError
from flower_ist.runs.track import EVENT_FILE, TrackerError, run_key, scalars, track
from tests.fakes.runs import ROUNDS, write_run

# Above 2^24, where float32 has no odd numbers: TensorBoard rounds it, the others must not.
BIG = 2**40 + 1
SETTINGS = {"num-rounds": 2, "strategy": "ist"}
LINES = [
    {**line, "seed": 7, "wire_bytes_down": BIG, "seconds": {"train": 0.1}, "settings": SETTINGS}
    for line in ROUNDS
]


def quiet(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "by-hand", LINES)


def cut(run: Path, lines: int) -> None:
    texts = [json.dumps(line) + "\n" for line in LINES[:lines]]
    (run / RUN_LOG).write_text("".join(texts))


def test_scalars_by_hand():
    line = {
        "round": 3,
        "strategy": "ist",
        "seed": 1,
        "accuracy": None,
        "coverage": 0.5,
        "wire_bytes_down": 10,
        "wire_bytes_up": 2,
        "seconds": {"train": 1.5},
        "clients": {"a": {"wire_bytes_up": 2}},
        "failures": {"a": "late"},
        "settings": {"seed": 1},
        "resumed_after": 2,
    }
    expected = {"coverage": 0.5, "wire_bytes_down": 10, "wire_bytes_up": 2, "seconds/train": 1.5}
    first, second = scalars([line, {**line, "round": 4}])
    assert first == (
        3,
        {**expected, "total/wire_bytes_down": 10, "total/wire_bytes_up": 2},
    )
    assert second[1]["total/wire_bytes_down"] == 20
    ((_, found),) = scalars([line], per_client=True)
    assert found["clients/a/wire_bytes_up"] == 2


def test_the_key_of_a_run_stays_and_is_its_own():
    assert run_key(LINES) == run_key(LINES[:1])
    assert run_key(LINES) != run_key([{**LINES[0], "wire_bytes_up": 1}])


def in_event_files(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Read events back as TensorBoard does: tag -> (step, value) of each event."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(run), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [(e.step, make_ndarray(e.tensor_proto).item()) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def in_the_log(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for step, values in scalars(lines):
        for tag, value in values.items():
            found.setdefault(tag, []).append((step, value))
    return found


def as_float32(found: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    return {tag: [(s, float(np.float32(v))) for s, v in values] for tag, values in found.items()}


def test_tensorboard_has_the_numbers_of_the_log_in_float32(run):
    pytest.importorskip("tensorboard")
    assert track(run, "tensorboard", tell=quiet) == 3
    found = in_event_files(run)
    assert found == as_float32(in_the_log(LINES))
    assert found["accuracy"][1:] == [(1, 0.875), (2, 0.75)]
    assert found["total/wire_bytes_up"] == [(0, 2000), (1, 3_002_000), (2, 4_002_500)]


def test_tensorboard_twice_is_the_same_as_once(run):
    pytest.importorskip("tensorboard")
    for _ in range(2):
        track(run, "tensorboard", tell=quiet)
        assert in_event_files(run) == as_float32(in_the_log(LINES))
    assert [path.name for path in run.iterdir() if "tfevents" in path.name] == [EVENT_FILE]


def test_tensorboard_follows_a_run_that_is_cut_and_goes_on(run, monkeypatch):
    pytest.importorskip("tensorboard")
    cut(run, 1)
    states = iter([2, 1, 2, 3])
    seen: list[int] = []

    def sleep(_: float) -> None:
        seen.append(len(in_event_files(run)["accuracy"]))
        cut(run, next(states))

    monkeypatch.setattr(tracking.time, "sleep", sleep)
    track(run, "tensorboard", follow=True, tell=quiet)
    assert seen == [1, 2, 1, 2]
    assert in_event_files(run) == as_float32(in_the_log(LINES))


def test_a_round_that_was_cut_short_is_not_sent(run):
    pytest.importorskip("tensorboard")
    with (run / RUN_LOG).open("a") as file:
        file.write(json.dumps({**LINES[2], "round": 3, "error": "OSError: gone"}) + "\n")
    assert track(run, "tensorboard", tell=quiet) == 3


class FakeWandb(ModuleType):
    """What the tracker uses of wandb: a server that keeps what was logged and is offline."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.rows: list[tuple[str, int, dict[str, float]]] = []
        self.inits: list[dict[str, Any]] = []

    def init(self, **options: Any) -> SimpleNamespace:
        self.inits.append(options)
        key = options["id"]
        return SimpleNamespace(
            step=0,
            log=lambda found, step: self.rows.append((key, step, found)),
            finish=lambda: None,
        )


def test_wandb_gets_each_round_once(run, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    cut(run, 2)
    assert track(run, "wandb", project="mine", tell=quiet) == 2
    cut(run, 3)
    assert [track(run, "wandb", project="mine", tell=quiet) for _ in range(2)] == [1, 0]
    key = run_key(LINES)
    assert fake.rows == [(key, step, found) for step, found in scalars(LINES)]
    assert {(i["project"], i["name"], i["resume"]) for i in fake.inits} == {
        ("mine", "by-hand", "allow")
    }
    assert fake.inits[0]["config"] == SETTINGS
    # Another project has none of them yet.
    assert track(run, "wandb", project="other", tell=quiet) == 3


def test_wandb_that_refuses_is_a_sentence(run, monkeypatch):
    fake = FakeWandb()

    def init(**_: Any) -> SimpleNamespace:
        raise RuntimeError("no\nkey.")

    monkeypatch.setattr(fake, "init", init)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(TrackerError, match=r"W&B cannot be used .*no key.*WANDB_MODE=offline"):
        track(run, "wandb", tell=quiet)


def test_mlflow_gets_each_round_once(run, tmp_path, monkeypatch):
    """Against MLflow's own local store; it is not among the test libraries, so rarely there."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    from mlflow.tracking import MlflowClient

    cut(run, 2)
    assert track(run, "mlflow", project="mine", tell=quiet) == 2
    cut(run, 3)
    assert [track(run, "mlflow", project="mine", tell=quiet) for _ in range(2)] == [1, 0]
    client = MlflowClient()
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params == {"num-rounds": "2", "strategy": "ist"}
    for tag, values in in_the_log(LINES).items():
        history = client.get_metric_history(found.info.run_id, tag)
        assert [(metric.step, metric.value) for metric in history] == values


@pytest.mark.parametrize("to", ["tensorboard", "wandb", "mlflow"])
def test_without_its_library_a_sentence_names_the_extra(run, monkeypatch, to):
    for name in (to, "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, name, None)
    result = CliRunner().invoke(app, ["track", str(run), "--to", to])
    assert result.exit_code == 1
    assert f"pip install 'flower-ist[{to}]'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_wrong_arguments_are_sentences(run, tmp_path):
    with pytest.raises(TrackerError, match="no tracker 'excel': choose from tensorboard, wandb, m"):
        track(run, "excel")
    with pytest.raises(RunLogError, match="no run folder"):
        track(tmp_path / "none", "tensorboard")
    with pytest.raises(RunLogError, match="holds no round yet: wait for one with --follow"):
        track(tmp_path, "tensorboard")
