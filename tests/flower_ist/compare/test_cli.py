"""``flower-ist compare``: what it hands on, its sentences, its exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from flower_ist import cli
from flower_ist.compare import command
from flower_ist.compare.folder import ComparisonFolder
from flower_ist.compare.plan import DEFAULT_STRATEGIES, Plan
from flower_ist.compare.planning import DEFAULT_SETTINGS, make_plan

Calls = list[tuple[Plan, Path, int | None]]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["compare", *map(str, arguments)])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made: Calls = []

    def compare(plan: Plan, out: Path, console: Console, jobs: int | None) -> bool:
        made.append((plan, out, jobs))
        return plan.target_accuracy != 0.0

    monkeypatch.setattr(command, "compare", compare)
    return made


def test_what_it_does_without_options(calls):
    assert call("--out", "x").exit_code == 0
    plan, out, jobs = calls[0]
    assert (plan.strategies, plan.data, out, jobs) == (DEFAULT_STRATEGIES, "", Path("x"), None)
    assert (plan.clients, plan.rounds, plan.seeds, plan.engine) == (4, 10, 3, "inprocess")
    assert plan.settings == {"validation-share": 0.2}  # the rest is the app's own recipe


def test_plain_is_each_strategy_as_it_was_published(calls):
    assert call("--out", "x", "--plain").exit_code == 0
    assert calls[0][0].settings == {
        "local-steps": 80,
        "validation-share": 0.2,
        "standardize": False,
        "replay": False,
        "lda-skip": False,
        "wire-dtype": "float32",
    }


def test_options_are_handed_on(calls, blobs):
    options: list[Any] = ["--data", blobs, "--strategies", "ist,fedavg", "--clients", 2]
    options += ["--rounds", 5, "--seeds", 1, "--engine", "flwr", "--jobs", 3, "--out", "x"]
    options += ["--sweep", "local-steps=20,80", "learning-rate=0.1,1", "--set", "a=1", "b=x"]
    options += ["--capacity", "0.5,0.25", "--target-accuracy", 0.75]
    result = call(*options)
    assert result.exit_code == 0, result.output
    plan, _, jobs = calls[0]
    assert (plan.data, plan.strategies, plan.clients) == (str(blobs), ("ist", "fedavg"), 2)
    assert (plan.rounds, plan.seeds, plan.engine, jobs) == (5, 1, "flwr", 3)
    assert plan.sweep == {"local-steps": (20, 80), "learning-rate": (0.1, 1)}
    own = {key: value for key, value in DEFAULT_SETTINGS.items() if key != "local-steps"}
    assert plan.settings == {**own, "a": 1, "b": "x"}
    assert (plan.capacity, plan.target_accuracy) == ((0.5, 0.25), 0.75)


@pytest.mark.parametrize("option", [("--set", "local-epochs=3"), ("--sweep", "local-epochs=3,6")])
def test_epochs_decide_the_steps_once_they_are_named(calls, option):
    assert call("--out", "x", "--plain", *option).exit_code == 0
    assert calls[0][0].settings["local-steps"] == 0


def test_it_repeats_a_comparison(calls, tmp_path, blobs):
    plan = make_plan(data=blobs, strategies="ist", clients=2)
    ComparisonFolder(tmp_path).adopt(plan)
    assert call("--from", tmp_path, "--out", "new").exit_code == 0
    assert calls == [(plan, Path("new"), None)]
    result = call("--from", tmp_path, "--out", "new", "--clients", 3)
    assert result.exit_code == 1
    assert "--from repeats a comparison as it is" in result.stderr


def test_a_failed_run_is_exit_status_1(calls):
    assert call("--out", "x", "--target-accuracy", 0).exit_code == 1
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--strategies", "ist,ist"], "Each strategy is compared once"),
        (["--strategies", "ist,foo"], "'foo' is not a strategy: choose from ist, ist-fixed,"),
        (["--data", "/nowhere"], "There is no token shard at /nowhere/client-0"),
        (["--set", "nonsense"], "write key=value"),
        (["--set", "no-such-setting=1"], "The app has no setting 'no-such-setting'"),
        (["--set", "batch-size=many"], "'batch-size' is 'many', but must be a whole number"),
        (["--set", "batch-size=0"], "'batch-size' is 0, but must be at least 1"),
        (
            ["--sweep", "learning-rate=0.1,1", "--set", "validation-share=0"],
            "Settings are chosen by validation accuracy, but the runs have none",
        ),
        (["--sweep", "learning-rate=0.1,-1"], "'learning-rate' is -1.0, but must be above 0"),
        (["--app", "/nowhere"], "There is no Flower app in /nowhere"),
        (["--from", "/nowhere"], "There is no comparison in /nowhere"),
    ],
)
def test_whatever_is_wrong_is_one_sentence(tmp_path, options, sentence):
    result = call("--out", tmp_path / "out", *options)
    assert result.exit_code == 1
    text = typer.unstyle(result.stderr)
    assert text.startswith("Error: ")
    assert sentence in text
    assert text.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_images_is_no_place_for_a_comparison(tmp_path):
    (tmp_path / "cat").mkdir()
    result = call("--out", tmp_path)
    assert result.exit_code == 1
    assert f"Error: {tmp_path} is not a comparison's folder: choose" in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat"]


def test_help():
    output = " ".join(typer.unstyle(call("--help").output).split())
    for text in ("--strategies", "--sweep", "--from", "(10)", "byte meter"):
        assert text in output
