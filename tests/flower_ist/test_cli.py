"""The command line: what it prints, how it fails, and its help."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from data_prep.commands.app import app as data_prep
from flower_ist import cli
from flower_ist.runs.launch import LaunchError
from tests.fakes.runs import PNG, SUMMARY, write_run


def call(*arguments: object) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(cli.app, words, prog_name="flower-ist")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "by-hand")


def test_report_as_a_table(run):
    result = call("report", run)
    assert result.exit_code == 0
    for text in ("by-hand", "8.00", "4.00", "3000.0", "70.0", "50.0", "87.50", "75.00"):
        assert text in result.output


def test_report_as_json(run):
    result = call("report", run, run, "--format", "json")
    assert result.exit_code == 0
    assert json.loads(result.output) == [asdict(SUMMARY)] * 2


def test_report_as_csv(run):
    result = call("report", run, "--format", "csv")
    assert result.exit_code == 0
    (row,) = csv.DictReader(io.StringIO(result.output))
    assert (row["name"], row["wire_bytes_down"]) == ("by-hand", "8001500")
    assert not result.output.endswith("\n\n")


def test_report_takes_the_file_too(run):
    (summary,) = json.loads(call("report", run / "run.jsonl", "--format", "json").output)
    assert summary["wire_bytes_up"] == SUMMARY.wire_bytes_up


def test_report_draws_a_plot(run, tmp_path):
    result = call("report", run, "--plot", tmp_path / "plot.png")
    assert result.exit_code == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


def fails_with_one_sentence(result: Result) -> str:
    assert result.exit_code == 1
    assert result.stdout == ""
    text = typer.unstyle(result.stderr)
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


def test_a_missing_run_is_one_sentence(run, tmp_path):
    text = fails_with_one_sentence(call("report", run, tmp_path / "none"))
    assert "There is no readable run log at" in text


def test_a_damaged_run_is_one_sentence(run):
    file = run / "run.jsonl"
    file.write_text("nonsense\n" + file.read_text())
    assert "Line 1 of" in fails_with_one_sentence(call("report", run))


def test_a_plot_that_cannot_be_written_is_one_sentence(run, tmp_path):
    result = call("report", run, "--plot", tmp_path / "plot.nonsense")
    assert "The plot cannot be written" in fails_with_one_sentence(result)


def test_demo_hands_its_options_on(tmp_path, monkeypatch):
    calls: list[tuple[Any, ...]] = []

    def run_demo(
        out: Path, strategies: Sequence[str], clients: int, rounds: int, console: Console
    ) -> None:
        calls.append((out, list(strategies), clients, rounds))

    monkeypatch.setattr("flower_ist.compare.demo.run_demo", run_demo)
    assert call("demo").exit_code == 0
    options = ["--strategies", "fedavg", "--clients", 8, "--rounds", 2]
    assert call("demo", "--out", tmp_path, *options).exit_code == 0
    assert calls == [
        (Path("demo-out"), ["ist", "fedavg-narrow", "fedavg"], 4, 10),
        (tmp_path, ["fedavg"], 8, 2),
    ]


def test_a_demo_that_fails_is_an_error(monkeypatch):
    def run_demo(*_: object) -> None:
        raise LaunchError("Run 1 is finished:failed")

    monkeypatch.setattr("flower_ist.compare.demo.run_demo", run_demo)
    assert "Run 1 is finished:failed" in fails_with_one_sentence(call("demo"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["report"],
        ["report", "run", "--format", "xml"],
        ["demo", "--clients", "0"],
        ["demo", "--rounds", "0"],
        ["nonsense"],
    ],
)
def test_wrong_arguments_are_usage_errors(arguments):
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in typer.unstyle(result.output)


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--help"], ["Independent Subnetwork Training", "demo", "report"]),
        (["demo", "--help"], ["--out", "--strategies", "--clients", "--rounds", "flwr run"]),
        (["report", "--help"], ["--format", "--plot", "run.jsonl", "bytes on the wire"]),
        # Of arguments, which some versions of click lose.
        (["predict", "--help"], ["Folder of a run, or its model.safetensors."]),
        (["report", "--help"], ["Run folders, or run.jsonl files."]),
    ],
)
def test_help(arguments, texts):
    result = call(*arguments)
    assert result.exit_code == 0
    output = " ".join(typer.unstyle(result.output).split())
    for text in texts:
        assert text in output


@pytest.mark.parametrize("name", cli.DATA_PREP_COMMANDS)
def test_commands_of_data_prep_are_the_same_as_its_own(name):
    """But for the first line, which names the program."""
    ours = call(name, "--help").output.splitlines()
    theirs = CliRunner().invoke(data_prep, [name, "--help"]).output.splitlines()
    assert f"flower-ist {name} " in ours[1]
    assert ours[2:] == theirs[2:]


def test_prep_shows_its_own_help():
    result = call("prep", "--help")
    output = " ".join(typer.unstyle(result.output).split())
    assert result.exit_code == 0
    assert "flower-ist prep [OPTIONS] SOURCE" in output
    assert "--mask-ratio" in output


def test_exit_codes_of_data_prep_are_kept(tmp_path):
    assert call("probe", tmp_path / "none", "--test", tmp_path / "none").exit_code == 1
    assert call("probe", "--nonsense").exit_code == 2


def test_without_data_prep_a_sentence_says_where_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "data_prep.commands.prep", None)
    text = fails_with_one_sentence(call("prep", "images", "--out", "shards"))
    assert "is not installed: pip install 'flower-ist[prep]'." in text
