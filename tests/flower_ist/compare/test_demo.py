"""The demo's runs: which settings each strategy gets, and what is refused at once."""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flower_ist.compare import demo
from flower_ist.compare.demo import run_demo
from flower_ist.compare.plan import PlanError
from flower_ist.compare.usage import usage_of
from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LaunchError
from flower_ist.runs.log import read_run
from tests.fakes.runs import ROUNDS, write_run


class NoRuns:
    """Stands for the runs: notes what each is given and writes a log of as many rounds."""

    def __init__(self) -> None:
        self.given: list[tuple[Mapping[str, Any], int]] = []
        self.error: Exception | None = None

    def __call__(self, app: Path, engine: str, clients: int, config: Mapping[str, Any]) -> None:
        assert (app / "bundle" / "server.py").is_file()
        assert engine == "flwr"
        write_run(Path(config["output-dir"]), ROUNDS[: config["num-rounds"] + 1])
        self.given.append((config, clients))
        if self.error is not None:
            raise self.error


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> NoRuns:
    runs = NoRuns()
    monkeypatch.setattr(demo, "run_app", runs)
    monkeypatch.setattr(demo, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(demo, "find_spec", lambda name: object())
    return runs


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_every_kind_of_strategy_gets_the_settings_it_needs(runs, console, tmp_path):
    names = ["ist", "fedrolex", "ridge", "central", "fedprox", "fedavg-narrow"]
    picture = run_demo(tmp_path, names, 4, 2, console)
    own = usage_of(find_app()).config
    changes = [
        ({k: v for k, v in config.items() if v != own[k] and k != "output-dir"}, clients)
        for config, clients in runs.given
    ]
    # The time to wait is only a limit: a run begins as soon as all clients have answered.
    common = {"num-rounds": 2, "node-timeout": 300.0, "keep-checkpoints": 0}
    four = {**common, "min-available-nodes": 4}
    # All 4,000 examples are the one client's: a fourth of 12 epochs is as many steps.
    alone = {"min-train-nodes": 1, "min-available-nodes": 1, "local-epochs": 3.0}
    assert changes == [
        ({**four, "num-slices": 4}, 4),
        ({"strategy": "fedrolex", **four, "capacities": "0.25"}, 4),
        ({"strategy": "ridge", **four, "num-rounds": 1}, 4),
        ({"strategy": "fedavg", **common, **alone}, 1),
        ({"strategy": "fedprox", **four}, 4),
        ({"strategy": "fedavg-narrow", **four, "num-slices": 4}, 4),
    ]
    assert picture.stat().st_size > 1000
    text = console.file.getvalue()
    assert "ridge round 1/1: accuracy 87.5 %" in text
    assert "These bytes are the messages'. Nobody fetched an app bundle here" in text


@pytest.mark.parametrize(
    ("strategies", "clients", "sentence"),
    [
        ([], 4, "Each strategy is compared once"),
        (["ist", "ist"], 4, "Each strategy is compared once"),
        (["../ist"], 4, "is not a strategy"),
        (["ist"], 10_000, "The demo tokens serve at most"),
    ],
)
def test_what_is_refused_at_once(runs, console, tmp_path, strategies, clients, sentence):
    with pytest.raises(PlanError, match=sentence):
        run_demo(tmp_path, strategies, clients, 2, console)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_a_sentence_names_the_extra(console, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(PlanError, match=r"first, pip install 'flower-ist\[plot\]'\.$"):
        run_demo(tmp_path, ["ist"], 4, 2, console)


def test_of_a_run_that_fails_the_cause_is_told(runs, console, tmp_path):
    runs.error = LaunchError("The run failed: no clients.")
    with pytest.raises(LaunchError, match=r"^ist failed: .* no clients\.\nMore is in .*\.log\.$"):
        run_demo(tmp_path / "out", ["ist", "fedavg"], 4, 2, console)
    assert len(runs.given) == 1


def test_without_ray_the_clients_take_turns_in_one_process(console, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "ray" else object())
    picture = run_demo(tmp_path, ["ridge"], 3, 5, console)
    text = console.file.getvalue()
    assert "Ray is not installed" in text
    assert "pip install 'flower-ist[simulation]'" in text
    (line,) = read_run(picture.parent / "ridge")[1:]
    assert line["clients_replied"] == 3
    assert line["accuracy"] > 0.75
    assert "strategy" in (picture.parent / "flower.log").read_text()
