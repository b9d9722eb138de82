"""Runs in processes of their own: in parallel, one failing, killed and gone on with."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flower_ist.compare import command
from flower_ist.compare.execute import Executor, last_round
from flower_ist.compare.folder import ComparisonFolder
from flower_ist.compare.plan import Run
from flower_ist.compare.worker import main
from tests.fakes import ROOT
from tests.fakes.comparisons import TINY, tiny_plan

# A worker without torch: it writes when it began and ended, fails for seed 1 and dies for seed 2.
FAKE_WORKER = """
import json, os, sys, time
folder = sys.argv[1]
seed = json.load(open(folder + "/settings.json"))["seed"]
if seed == 1:
    open(folder + "/failed.txt", "w").write("There are no clients.")
elif seed == 2:
    os.kill(os.getpid(), 9)
else:
    began = time.time()
    time.sleep(0.4)
    open(folder + "/run.jsonl", "w").write('{"round": 2, "accuracy": 0.5}' + chr(10))
    json.dump([began, time.time()], open(folder + "/done.json", "w"))
"""


@pytest.fixture
def executor(tmp_path: Path, blobs: Path) -> Any:
    plan = tiny_plan(blobs, "ist", seeds=5)
    folder = ComparisonFolder(tmp_path / "out")
    console = Console(file=io.StringIO())
    with folder.locked() as lock:
        base = command.read_config(Path(plan.app))
        worker = (sys.executable, "-c", FAKE_WORKER)
        yield Executor(folder, plan, base, 2, lock, console, worker)


def spans(executor: Executor, runs: list[Run]) -> list[tuple[float, float]]:
    files = [executor.folder.run_folder(run) / "done.json" for run in runs]
    return sorted(tuple(json.loads(file.read_text())) for file in files)


def test_runs_are_parallel_and_a_failed_one_stops_no_other(executor):
    runs = [Run("ist", {}, seed) for seed in range(5)]
    executor.execute(runs, "runs")
    assert executor.failed.keys() == {"ist-default-seed1", "ist-default-seed2"}
    assert executor.failed["ist-default-seed1"] == "There are no clients."
    assert "ended with status -9" in executor.failed["ist-default-seed2"]
    assert executor.folder.failure(runs[2]) == executor.failed["ist-default-seed2"]
    first, second, third = spans(executor, [runs[0], runs[3], runs[4]])
    assert third[0] > min(first[1], second[1])  # never more than two at a time
    text = executor.console.file.getvalue()
    assert "ist-default-seed0: accuracy 50.00 % after round 2" in text
    assert "ist-default-seed1 failed: There are no clients." in text


def test_finished_runs_are_not_repeated_and_failed_ones_are(executor):
    runs = [Run("ist", {}, seed) for seed in (0, 1)]
    executor.execute(runs, "runs")
    before = spans(executor, runs[:1])
    executor.failed.clear()
    executor.execute(runs, "runs")
    assert spans(executor, runs[:1]) == before
    assert executor.failed.keys() == {"ist-default-seed1"}


def test_two_runs_at_a_time_overlap(executor):
    runs = [Run("ist", {}, seed) for seed in (0, 3)]
    executor.execute(runs, "runs")
    first, second = spans(executor, runs)
    assert second[0] < first[1]


def test_an_interrupt_ends_the_workers(executor, monkeypatch):
    processes: list[subprocess.Popen[bytes]] = []

    def interrupted(one: Any, bars: Any) -> None:
        processes.append(one.process)
        raise KeyboardInterrupt

    executor.worker = (sys.executable, "-c", "import sys; sys.stdin.read()")
    monkeypatch.setattr("flower_ist.compare.execute._show", interrupted)
    with pytest.raises(KeyboardInterrupt):
        executor.execute([Run("ist", {}, 0)], "runs")
    assert processes[0].returncode == 0


def test_the_last_round_of_a_growing_log(tmp_path):
    assert last_round(tmp_path) is None
    (tmp_path / "run.jsonl").write_text('{"round": 0}\n{"round": 1}\n{"rou')
    assert last_round(tmp_path) == {"round": 1}
    (tmp_path / "run.jsonl").write_text('{"rou')
    assert last_round(tmp_path) is None


def test_a_run_that_cannot_start_leaves_a_sentence(tmp_path, blobs):
    plan, run = replace(tiny_plan(blobs, "ist"), app=str(tmp_path / "nothing")), Run("ist", {}, 0)
    folder = ComparisonFolder(tmp_path / "out")
    assert main(folder.prepare(run, plan, {})) == 1
    assert "There is no Flower app in" in str(folder.failure(run))
    assert not folder.is_done(run)


KILLED = """
import sys
from pathlib import Path
from rich.console import Console
from flower_ist.compare.command import read_config
from flower_ist.compare.execute import Executor
from flower_ist.compare.folder import ComparisonFolder, read_plan
from flower_ist.compare.plan import Run

out, worker = Path(sys.argv[1]), sys.argv[2]
folder, plan = ComparisonFolder(out), read_plan(out)
with folder.locked() as lock:
    base = read_config(Path(plan.app))
    command = (sys.executable, "-c", worker)
    executor = Executor(folder, plan, base, 1, lock, Console(), command)
    executor.execute([Run("ist", {}, seed) for seed in (0, 3, 4)], "runs")
"""
# Seed 3 lasts until its standard input ends, and then a little longer.
LASTING_WORKER = FAKE_WORKER.replace(
    "elif seed == 2:", "elif seed == 3:\n    sys.stdin.read(); time.sleep(1)\nelif seed == 2:"
)


def test_killed_and_started_again_it_goes_on(tmp_path, blobs):
    """The comparison's own process is killed in its second run; the worker outlives it a second."""
    out = tmp_path / "out"
    plan = tiny_plan(blobs, "ist", seeds=5)
    folder = ComparisonFolder(out)
    with folder.locked():
        folder.adopt(plan)
    command_line = [sys.executable, "-c", KILLED, str(out)]
    runs = [Run("ist", {}, seed) for seed in (0, 3, 4)]
    files = [folder.run_folder(run) / "done.json" for run in runs]
    with subprocess.Popen([*command_line, LASTING_WORKER], stdout=subprocess.DEVNULL) as process:
        wait_for(files[1].with_name("settings.json"), process)
        process.kill()
    before = files[0].read_text()
    assert [file.exists() for file in files] == [True, False, False]
    subprocess.run([*command_line, FAKE_WORKER], check=True, stdout=subprocess.DEVNULL)
    assert files[0].read_text() == before
    assert all(file.exists() for file in files)


def wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_started_again_it_finishes_without_repeating(tmp_path, blobs):
    """With real processes, the comparison's own killed while its second run is under way."""
    out = tmp_path / "out"
    root = ROOT
    words = [sys.executable, "-c", "from flower_ist.cli import app; app()", "compare"]
    words += ["--app", root, "--data", blobs]
    words += ["--strategies", "ist,fedavg", "--clients", 2, "--rounds", 2, "--seeds", 1]
    words += ["--jobs", 1, "--out", out, "--set", *TINY]
    start = [str(word) for word in words]
    first, second = (out / "runs" / f"{name}-default-seed0" for name in ("ist", "fedavg"))
    with subprocess.Popen(start, cwd=root, stdout=subprocess.DEVNULL) as process:
        wait_for(second / "settings.json", process)
        process.kill()
    before = (first / "done.json").read_bytes(), (first / "done.json").stat().st_mtime_ns
    assert not (second / "done.json").exists()
    assert not (out / "report.html").exists()
    done = subprocess.run(start, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert before == ((first / "done.json").read_bytes(), (first / "done.json").stat().st_mtime_ns)
    assert (second / "done.json").exists()
    assert "fedavg-default-seed0: accuracy" in done.stdout
    assert "ist-default-seed0: accuracy" not in done.stdout
    assert (out / "report.html").exists()
