"""Runs in processes of their own: in parallel, one failing, killed and gone on with."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flower_ist.compare.folder import ComparisonFolder
from flower_ist.compare.plan import Run
from flower_ist.compare.runner import Runner, do_run, last_round
from tests.fakes import ROOT
from tests.fakes.comparisons import TINY, tiny_plan
from tests.fakes.tasks import fake_run


@pytest.fixture
def runner(tmp_path: Path, blobs: Path) -> Any:
    plan = tiny_plan(blobs, "ist", seeds=7)
    folder = ComparisonFolder(tmp_path / "out")
    console = Console(file=io.StringIO())
    with folder.locked():
        yield Runner(folder, plan, 2, console, fake_run)


def spans(runner: Runner, runs: list[Run]) -> list[tuple[float, float]]:
    files = [runner.folder.run_folder(run) / "done.json" for run in runs]
    return sorted(tuple(json.loads(file.read_text())) for file in files)


def test_runs_are_parallel_and_a_failed_or_killed_one_stops_no_other(runner):
    runs = [Run("ist", {}, seed) for seed in (0, 1, 2, 4, 5)]
    runner.execute(runs, "runs")
    assert runner.failed.keys() == {"ist-default-seed1", "ist-default-seed2"}
    assert runner.failed["ist-default-seed1"] == "There are no clients."
    assert "its process was killed" in runner.failed["ist-default-seed2"]
    assert runner.folder.failure(runs[2]) == runner.failed["ist-default-seed2"]
    first, second, third = spans(runner, [runs[0], runs[3], runs[4]])
    assert third[0] > min(first[1], second[1])  # never more than two at a time
    text = runner.console.file.getvalue()
    assert "ist-default-seed0: accuracy 50.00 % after round 2" in text
    assert "ist-default-seed1 failed: There are no clients." in text


def test_finished_runs_are_not_repeated_and_failed_ones_are(runner):
    runs = [Run("ist", {}, seed) for seed in (0, 1)]
    runner.execute(runs, "runs")
    before = spans(runner, runs[:1])
    runner.failed.clear()
    runner.execute(runs, "runs")
    assert spans(runner, runs[:1]) == before
    assert runner.failed.keys() == {"ist-default-seed1"}


def test_two_runs_at_a_time_overlap(runner):
    runs = [Run("ist", {}, seed) for seed in (0, 4)]
    runner.execute(runs, "runs")
    first, second = spans(runner, runs)
    assert second[0] < first[1]


def test_the_last_round_of_a_growing_log(tmp_path):
    assert last_round(tmp_path) is None
    (tmp_path / "run.jsonl").write_text('{"round": 0}\n{"round": 1}\n{"rou')
    assert last_round(tmp_path) == {"round": 1}
    (tmp_path / "run.jsonl").write_text('{"rou')
    assert last_round(tmp_path) is None


def test_a_run_that_cannot_start_leaves_a_sentence(tmp_path, blobs):
    plan, run = tiny_plan(blobs, "ist"), Run("ist", {}, 0)
    folder = ComparisonFolder(tmp_path / "out")
    config = folder.config(run, plan)
    folder.prepare(run, config)
    assert not do_run(tmp_path / "nothing", "inprocess", 2, config)
    assert "There is no Flower app in" in str(folder.failure(run))
    assert not folder.is_done(run)


# A comparison of runs that last; with a second argument, of runs that are soon over.
STARTED = """
import signal
import sys
from pathlib import Path
from rich.console import Console
from flower_ist.compare.folder import ComparisonFolder, read_plan
from flower_ist.compare.plan import Run
from flower_ist.compare.runner import Runner
from tests.fakes.tasks import fake_run

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
folder, plan = ComparisonFolder(Path(sys.argv[1])), read_plan(Path(sys.argv[1]))
with folder.locked():
    runner = Runner(folder, plan, 2, Console(), fake_run)
    runner.execute([Run("ist", {}, seed) for seed in map(int, sys.argv[2:])], "runs")
"""


def started(out: Path, *seeds: int) -> subprocess.Popen[bytes]:
    """Start a comparison in a session of its own, as a terminal does."""
    words = [sys.executable, "-c", STARTED, str(out), *map(str, seeds)]
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_the_last_of(session: int) -> None:
    """Wait until no process of a session is left."""
    deadline = time.monotonic() + 30
    while any(member(entry.name, session) for entry in Path("/proc").iterdir()):
        assert time.monotonic() < deadline, "a process is left behind"
        time.sleep(0.05)


def member(process: str, session: int) -> bool:
    try:
        state, _, _, of, *_ = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):  # no process, or gone by now
        return False
    return int(of) == session and state != "Z"


@pytest.fixture
def planned(tmp_path: Path, blobs: Path) -> ComparisonFolder:
    folder = ComparisonFolder(tmp_path / "out")
    with folder.locked():
        folder.adopt(tiny_plan(blobs, "ist", seeds=7))
    return folder


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks processes up in /proc")
@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_it_ends_with_its_processes_and_goes_on_without_repeating(planned, end):
    """Ctrl-C reaches every process of the terminal, SIGKILL only the comparison's own."""
    done, lasting, waiting = (
        planned.run_folder(Run("ist", {}, seed)) / "done.json" for seed in (0, 3, 4)
    )
    with started(planned.path, 0, 3, 4) as process:
        wait_for(done, process)
        wait_for(lasting.with_name("began.txt"), process)
        before = done.read_bytes(), done.stat().st_mtime_ns
        if end == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
            assert process.stderr is not None
            errors = process.stderr.read().decode()
            assert errors.count("Traceback") == 1, errors  # only our own KeyboardInterrupt
        else:
            process.kill()
        process.wait(60)
        wait_for_the_last_of(process.pid)
    assert not lasting.exists()
    assert not lasting.with_name("failed.txt").exists()
    with started(planned.path, 0, 4) as process:
        assert process.wait(60) == 0
    assert before == (done.read_bytes(), done.stat().st_mtime_ns)
    assert waiting.exists()


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
