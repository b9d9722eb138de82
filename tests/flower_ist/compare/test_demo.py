"""The demo's runs: which settings each strategy gets, and what is refused at once."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from rich.console import Console

from flower_ist.compare import demo
from flower_ist.compare.demo import run_demo
from flower_ist.compare.plan import PlanError
from tests.fakes.runs import ROUNDS, write_run


class NoFlower:
    """Stands for ``LocalFlower``: notes what it is to run and writes logs of as many rounds."""

    submitted: list[tuple[Mapping[str, Any], int]]

    def __enter__(self) -> Self:
        NoFlower.submitted = []
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, app: Path, settings: Mapping[str, Any], clients: int) -> int:
        assert (app / "server_app").is_dir()
        folder = Path(settings["output-dir"])
        write_run(folder, ROUNDS[: settings["num-rounds"] + 1])
        self.submitted.append(({k: v for k, v in settings.items() if k != "output-dir"}, clients))
        return 7

    def wait(self, run_id: int, timeout: float, on_poll: Callable[[], bool]) -> None:
        assert (run_id, on_poll()) == (7, True)


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setattr(demo, "LocalFlower", NoFlower)
    return Console(file=io.StringIO(), width=200)


def test_every_kind_of_strategy_gets_the_settings_it_needs(console, tmp_path):
    names = ["ist", "fedrolex", "ridge", "central", "fedprox", "fedavg-narrow"]
    picture = run_demo(tmp_path, names, 4, 2, console)
    common = {"min-train-nodes": 2, "min-available-nodes": 4, "num-rounds": 2, "seed": 0}
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
    assert "ridge round 1/1: accuracy 87.5 %" in console.file.getvalue()


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


@pytest.mark.parametrize("library", ["matplotlib", "ray"])
def test_a_library_that_is_missing_is_named_with_its_extra(console, tmp_path, monkeypatch, library):
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == library else object())
    with pytest.raises(PlanError, match=r"first, .* pip install -e '\.\[plot,simulation\]'\.$"):
        run_demo(tmp_path, ["ist"], 4, 2, console)
