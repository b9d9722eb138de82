"""The demo's runs: which settings each strategy gets, and what is refused at once."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from rich.console import Console

from flower_ist.compare import demo, plan
from flower_ist.compare.demo import run_demo
from flower_ist.compare.plan import PlanError
from flower_ist.files import write_file
from flower_ist.runs.launch import LaunchError
from flower_ist.runs.log import read_run
from tests.fakes.runs import ROUNDS, write_run


class NoFlower:
    """Stands for ``LocalFlower``: notes what it is to run and writes logs of as many rounds."""

    submitted: list[tuple[Mapping[str, Any], int]]
    fails = False
    log_file: Path

    def __enter__(self) -> Self:
        NoFlower.submitted = []
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, app: Path, settings: Mapping[str, Any], clients: int) -> int:
        assert (app / "bundle" / "server.py").is_file()
        folder = Path(settings["output-dir"])
        write_run(folder, ROUNDS[: settings["num-rounds"] + 1])
        self.submitted.append(({k: v for k, v in settings.items() if k != "output-dir"}, clients))
        return 7

    def wait(
        self,
        run_id: int,
        timeout: float,
        on_poll: Callable[[], bool],
        progress: Callable[[], object],
    ) -> None:
        assert run_id == 7
        if self.fails:
            write_file(self.log_file, "first\nlast\n")
            raise LaunchError("The run failed: no clients.")
        assert on_poll()
        assert progress() == self.submitted[-1][0]["num-rounds"]


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setattr(demo, "LocalFlower", NoFlower)
    monkeypatch.setattr(demo, "find_spec", lambda name: object())
    return Console(file=io.StringIO(), width=200)


def test_every_kind_of_strategy_gets_the_settings_it_needs(console, tmp_path):
    names = ["ist", "fedrolex", "ridge", "central", "fedprox", "fedavg-narrow"]
    picture = run_demo(tmp_path, names, 4, 2, console)
    common = {"min-train-nodes": 2, "min-available-nodes": 4, "num-rounds": 2, "seed": 0}
    # Only a limit: the run begins as soon as all have answered.
    common |= {"node-timeout": 600.0}
    # All 4,000 examples are the one client's: a fourth of 12 epochs is as many steps.
    alone = {"min-train-nodes": 1, "min-available-nodes": 1, "local-epochs": 3.0}
    assert NoFlower.submitted == [
        ({"strategy": "ist", **common, "num-slices": 4}, 4),
        ({"strategy": "fedrolex", **common, "capacities": "0.25"}, 4),
        ({"strategy": "ridge", **common, "num-rounds": 1}, 4),
        ({"strategy": "fedavg", **common, **alone}, 1),
        ({"strategy": "fedprox", **common}, 4),
        ({"strategy": "fedavg-narrow", **common, "num-slices": 4}, 4),
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
def test_what_is_refused_at_once(console, tmp_path, strategies, clients, sentence):
    with pytest.raises(PlanError, match=sentence):
        run_demo(tmp_path, strategies, clients, 2, console)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_a_sentence_names_the_extra(console, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    with pytest.raises(PlanError, match=r"first, pip install 'flower-ist\[plot\]'\.$"):
        run_demo(tmp_path, ["ist"], 4, 2, console)


def test_of_a_run_that_fails_the_cause_is_told_and_the_log_is_kept(console, tmp_path, monkeypatch):
    monkeypatch.setattr(NoFlower, "fails", True)
    monkeypatch.setattr(NoFlower, "log_file", tmp_path / "superlink.log", raising=False)
    with pytest.raises(LaunchError, match=r"no clients\.\nMore is in .*flower\.log\.$") as caught:
        run_demo(tmp_path / "out", ["ist"], 4, 2, console)
    log = Path(str(caught.value).rpartition(" in ")[2].rstrip("."))
    assert log.read_text() == "first\nlast\n"


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
