"""The view of runs: every figure by hand, while the run goes on and after its end."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.clientapp import ClientApp
from rich.console import Console
from typer.testing import CliRunner

from client_app.app import app as client_app
from flower_ist.cli import app
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import RUN_LOG, RunLogError
from flower_ist.runs.watch import table as watching
from flower_ist.runs.watch.follow import LineFollower, RunFollower, State
from flower_ist.runs.watch.progress import progress
from flower_ist.runs.watch.table import sparkline, watch
from server_app.app import app as server_app
from tests.fakes.runs import ROUNDS, write_run

SECONDS = {"select": 1.0, "train": 7.0, "merge": 1.5, "evaluate": 0.5}
LINES = [
    ROUNDS[0],
    {**ROUNDS[1], "seconds": SECONDS, "coverage": 0.5, "loss": 0.25},
    {**ROUNDS[2], "seconds": SECONDS, "coverage": 0.75, "failures": {"b": "no reply came"}},
]
CLIENTS = {"a": {"wire_bytes_down": 1_500_000, "wire_bytes_up": 500_000}}


def begin(folder: Path, lines: int = 3, total: int = 4) -> Path:
    write_run(folder, [{**line, "clients": CLIENTS} for line in LINES[:lines]])
    (folder / "settings.json").write_text(json.dumps({"num-rounds": total, "strategy": "ist"}))
    return folder


def add(folder: Path, line: dict[str, Any]) -> None:
    with (folder / RUN_LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")


def shown(*folders: Path, width: int = 100, **options: object) -> tuple[str, bool]:
    file = io.StringIO()
    console = Console(file=file, width=width)
    good = watch(folders, console, **{"once": True, **options})  # type: ignore[arg-type]
    return file.getvalue(), good


def followed(folder: Path) -> RunFollower:
    run = RunFollower(folder)
    run.poll()
    return run


def test_progress_by_hand(tmp_path):
    """Rounds took 10 s each; 2 of 4 are left, and 4 s have gone by: 16 s."""
    run = followed(begin(tmp_path / "run"))
    os.utime(run.folder / RUN_LOG, (1000, 1000))
    found = progress(run, now=1004.0)
    assert (found.round, found.total_rounds, found.state) == (2, 4, State.RUNNING)
    assert (found.best, found.accuracies, found.eta) == ((0.875, 1), [0.1, 0.875, 0.75], 16.0)
    assert (found.bytes_down, found.bytes_up) == (8_001_500, 4_002_500)
    # 2 + 2 clients were asked, the whole model is 5 MB.
    assert found.full_model_bytes == 20_000_000
    assert found.clients == {"a": (4_500_000, 1_500_000, 0), "b": (0, 0, 1)}
    assert (found.failures, found.coverage) == ([(2, "b", "no reply came")], 0.75)


def test_the_view_of_one_run_has_every_figure(tmp_path):
    text, good = shown(begin(tmp_path / "run"))
    assert good
    for part in (
        "round 2 of 4",
        "75.00 %  best 87.50 % in round 1",
        "8.00 MB, 40.01 % of 20.00 MB with the whole model",
        "4.00 MB, 20.01 % of",
        "75.00 % of the weights",
        "train 7.00",
        "4.500",
        "round 2  b: no reply came",
        "▁█▇",
    ):
        assert part in text
    assert "\x1b" not in text


def test_several_runs_have_a_line_each(tmp_path):
    first, second = begin(tmp_path / "first"), begin(tmp_path / "second", lines=2, total=1)
    text, _ = shown(first, second)
    (line,) = [line for line in text.splitlines() if "second" in line]
    assert line.split()[:7] == ["second", "1/1", "87.50", "87.50", "4.00", "3.00", "0"]
    assert "finished" in line


def test_before_the_first_line_it_waits(tmp_path):
    (tmp_path / "settings.json").write_text('{"num-rounds": 3}')
    text, good = shown(tmp_path)
    assert good
    assert "waiting for its first round" in text
    assert "round - of 3" in text


def test_rounds_are_lines_of_plain_text_without_a_terminal(tmp_path, monkeypatch):
    """The run is written while it is watched, a line in two halves; watching ends with it."""
    folder = begin(tmp_path / "run", lines=0, total=2)
    texts = [json.dumps(line) + "\n" for line in LINES]
    pieces = [texts[0], texts[1][:40], texts[1][40:], texts[2]]

    def sleep(_: float) -> None:
        with (folder / RUN_LOG).open("a") as file:
            file.write(pieces.pop(0))

    monkeypatch.setattr(watching.time, "sleep", sleep)
    text, good = shown(folder, once=False)
    assert good
    assert pieces == []
    lines = [line for line in text.splitlines() if line.startswith("run: round")]
    assert [line.split(",")[0] for line in lines] == [f"run: round {n} of 2" for n in range(3)]
    assert "nothing from b" in lines[2]
    assert "finished" in text


def test_a_terminal_gets_a_live_view_that_ends_with_the_run(tmp_path, monkeypatch):
    folder = begin(tmp_path / "run", total=3)
    monkeypatch.setattr(watching.time, "sleep", lambda _: add(folder, {**LINES[2], "round": 3}))
    file = io.StringIO()
    assert watch([folder], Console(file=file, width=90, force_terminal=True))
    assert "running" in file.getvalue()
    assert "finished" in file.getvalue()


def test_a_failed_run_says_why_and_is_not_good(tmp_path):
    folder = begin(tmp_path / "run")
    add(folder, {"round": 3, "error": "the disk is full"})
    text, good = shown(folder, once=False)
    assert not good
    assert "failed: the disk is full" in text
    assert CliRunner().invoke(app, ["watch", str(folder)]).exit_code == 1


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ({"round": 3}, (State.RUNNING, "")),
        ({"round": 4}, (State.FINISHED, "")),
        ({"round": 4, "clients_failed": 1}, (State.FINISHED, "")),
        ({"round": 4, "error": "OSError: no disk"}, (State.FAILED, "OSError: no disk")),
        (
            {"round": 4, "clients_failed": 2},
            (State.FAILED, "none of 2 clients brought anything"),
        ),
    ],
)
def test_the_last_line_tells_the_state(tmp_path, line, state):
    folder = begin(tmp_path / "run")
    add(folder, {"clients_selected": 2, "clients_failed": 0, **line})
    assert followed(folder).state() == state


def test_a_failed_run_that_is_resumed_runs_again(tmp_path):
    """It takes the line of the round that was cut short out of its log."""
    folder = begin(tmp_path / "run")
    before = (folder / RUN_LOG).read_text()
    add(folder, {"round": 3, "error": "OSError: no disk"})
    run = followed(folder)
    assert run.state()[0] is State.FAILED
    (folder / RUN_LOG).write_text(before)
    run.poll()
    assert run.state() == (State.RUNNING, "")


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_real_run_whose_clients_fail_is_shown_as_failed(
    blob_config: Callable[..., dict[str, Any]], strategy: str
):
    broken = ClientApp()
    broken.query()(client_app._registered_funcs["query.default"])

    @broken.train()
    def train(message: Any, context: Any) -> Any:
        raise RuntimeError("no memory")

    config = blob_config(num_rounds=2, strategy=strategy)
    with pytest.raises(Exception, match="no memory"):
        run_in_process(server_app, broken, 2, config)
    text, good = shown(Path(config["output-dir"]), once=False)
    assert not good
    assert "failed: " in text
    assert "client-1: " in text
    assert "no memory" in text


def test_what_clients_wrote_cannot_steer_the_terminal(tmp_path):
    evil = {"\x1b[2Jx": "[red]\x1b]0;title\x07"}
    text, _ = shown(write_run(tmp_path / "run", [{**LINES[2], "failures": evil}]))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]" in text


def test_of_many_clients_those_that_failed_are_shown(tmp_path):
    clients = {f"c{k:02}": {"wire_bytes_down": 1, "wire_bytes_up": 1} for k in range(20)}
    line = {**LINES[2], "clients": clients, "failures": {"c19": "it is broken"}}
    text, _ = shown(write_run(tmp_path / "run", [line]))
    assert "and 4 more clients" in text
    assert text.count("c19") == 2


def test_a_missing_folder_and_a_damaged_log_are_sentences(tmp_path):
    with pytest.raises(RunLogError, match=r"no run folder at .*none: give the folder"):
        shown(tmp_path / "none")
    (tmp_path / RUN_LOG).write_text("nonsense\n")
    with pytest.raises(RunLogError, match=r"run\.jsonl has a damaged line.*nonsense"):
        shown(tmp_path)
    result = CliRunner().invoke(app, ["watch", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: There is no run folder")


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([None, 3.0], " ▁"),
        ([0.0, 1.0, 2.0, 7.0], "▁▂▃█"),
        ([5.0, None, 5.0], "▁ ▁"),
        ([9.0] + [0.0] * 31 + [1.0], "▁" * 31 + "█"),
    ],
)
def test_sparkline_by_hand(values, drawn):
    assert sparkline(values) == drawn


def test_a_log_that_was_cut_and_written_on_is_read_anew(tmp_path):
    """As a resumed run does: the new text may be longer than what was cut off."""
    file = tmp_path / "log"
    file.write_text('{"round": 0}\n{"round": 1}\n')
    lines = LineFollower(file)
    assert lines.poll()
    assert not lines.poll()
    file.write_text('{"round": 0}\n{"round": 21, "x": 3}\n{"round": 3}\n{"r')
    assert lines.poll()
    assert [line["round"] for line in lines.lines] == [0, 21, 3]
    file.write_text("")
    assert lines.poll()
    assert lines.lines == []
    file.unlink()
    assert not lines.poll()
