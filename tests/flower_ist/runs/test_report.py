"""Reports of a hand-written run: every figure derived by hand."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from flower_ist.errors import FlowerIstError
from flower_ist.files import NotWrittenError
from flower_ist.runs.log import RunLogError, read_run
from flower_ist.runs.report import (
    RunSummary,
    compare,
    cumulative_bytes,
    plot,
    summarize,
    to_csv,
    to_json,
    to_table,
)
from tests.fakes.runs import EMPTY, PNG, ROUNDS, SUMMARY, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "by-hand")


def test_summary_by_hand(run):
    assert summarize(run) == SUMMARY


def test_a_run_that_was_cut_off_is_summed_up_as_far_as_it_went(run):
    with (run / "run.jsonl").open("a") as file:
        file.write('{"round": 3, "accuracy": 0.9')
    assert summarize(run) == SUMMARY


def test_a_run_without_training_and_accuracy(tmp_path):
    summary = summarize(write_run(tmp_path / "run", [{"round": 0, "accuracy": None, **EMPTY}]))
    assert (summary.rounds, summary.bytes_per_client_round) == (0, 0.0)
    assert (summary.input_saved, summary.token_share) == (None, None)
    assert (summary.best_accuracy, summary.final_accuracy) == (None, None)


def test_of_equal_accuracies_the_cheaper_is_the_best(tmp_path):
    rounds = [ROUNDS[0], ROUNDS[1], {**ROUNDS[2], "accuracy": 0.875}]
    assert summarize(write_run(tmp_path / "run", rounds)).best_after_bytes == 7_003_000


def test_no_log_is_a_sentence(tmp_path):
    with pytest.raises(RunLogError, match="There is no readable run log"):
        summarize(tmp_path)


def test_bytes_add_up_over_the_rounds(run):
    assert cumulative_bytes(read_run(run)) == [3000, 7_003_000, 12_004_000]


def printed(width: int, *summaries: RunSummary) -> list[list[str]]:
    """Return the words of the table's lines in a terminal of a width."""
    file = io.StringIO()
    Console(width=width, file=file).print(to_table(summaries))
    return [line.split() for line in file.getvalue().splitlines() if line.strip()]


# A terminal of 80 columns cuts nothing off.
@pytest.mark.parametrize("width", [80, 200])
def test_table(width):
    *_, first, second = printed(width, SUMMARY, replace(SUMMARY, name="other", input_saved=None))
    assert first == ["by-hand", "2", "8.00", "4.00", "3000.0", "70.0", "50.0", "87.50", "75.00"]
    assert (second[0], second[6]) == ("other", "-")


def test_json_and_csv_hold_every_figure():
    other = replace(SUMMARY, name="with, comma", token_share=None)
    assert json.loads(to_json([SUMMARY, other])) == [asdict(SUMMARY), asdict(other)]
    rows = list(csv.DictReader(io.StringIO(to_csv([SUMMARY, other]))))
    assert [row["name"] for row in rows] == ["by-hand", "with, comma"]
    assert rows[0] == {name: str(value) for name, value in asdict(SUMMARY).items()}
    assert rows[1]["token_share"] == ""


def test_comparison_by_hand():
    """87.5 - 90 points; 12,004,000 of 48,016,000 bytes are a quarter."""
    baseline = replace(
        SUMMARY,
        name="fedavg",
        best_accuracy=0.9,
        wire_bytes_down=40_016_000,
        wire_bytes_up=8_000_000,
    )
    assert compare(SUMMARY, baseline) == (
        "by-hand is -2.50 points from fedavg's best accuracy with 25.0 % of its bytes."
    )


def test_plot_writes_a_picture(run, tmp_path):
    plot([run], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)
    plot([run, run], tmp_path / "plot.svg")
    assert "by-hand: best 87.5 %" in (tmp_path / "plot.svg").read_text()


def test_a_plot_that_cannot_be_written_is_a_sentence(run, tmp_path):
    with pytest.raises(FlowerIstError, match=r"^The plot cannot be written to .*plot\.nonsense"):
        plot([run], tmp_path / "plot.nonsense")
    assert not (tmp_path / "plot.nonsense").exists()
    with pytest.raises(NotWrittenError, match=r"plot\.png cannot be written \(No such file"):
        plot([run], tmp_path / "no/such/folder/plot.png")


def test_without_matplotlib_the_remedy_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(FlowerIstError, match=r"pip install 'flower-ist\[plot\]'"):
        plot([run], tmp_path / "plot.png")
