"""Do the runs of a comparison, several at a time, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flower_ist.compare.folder import FAILED_FILE, OUTPUT_FILE, ComparisonFolder
from flower_ist.compare.plan import Plan, Run
from flower_ist.runs.log import RUN_LOG

WORKER = (sys.executable, "-m", "flower_ist.compare.worker")
_POLL_SECONDS = 0.2
_END_SECONDS = 30.0


@dataclass
class _Active:
    run: Run
    folder: Path
    process: subprocess.Popen[bytes]
    task: TaskID


@dataclass
class Executor:
    """Does runs that are not done yet, and shows how far they are.

    Attributes:
        folder: of the comparison, locked.
        plan: what is compared.
        base: the app's own run config.
        jobs: most processes at a time.
        lock: the folder's lock, which workers inherit.
        console: where progress goes.
        worker: the command that does the run of the folder that is its last argument.
        failed: name -> sentence of the runs that failed now.
    """

    folder: ComparisonFolder
    plan: Plan
    base: Mapping[str, Any]
    jobs: int
    lock: int
    console: Console
    worker: Sequence[str] = WORKER
    failed: dict[str, str] = field(default_factory=dict)

    def execute(self, runs: Sequence[Run], title: str) -> None:
        """Do some runs. One that failed before is tried again; one that fails stops no other."""
        unique = {run.name: run for run in runs}
        waiting = deque(run for run in unique.values() if not self.folder.is_done(run))
        if not waiting:
            return
        active: list[_Active] = []
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bars:
            whole = bars.add_task(title, total=len(unique), state="runs")
            bars.update(whole, completed=len(unique) - len(waiting))
            try:
                while waiting or active:
                    while waiting and len(active) < self.jobs:
                        active.append(self._start(waiting.popleft(), bars))
                    time.sleep(_POLL_SECONDS)
                    for one in list(active):
                        _show(one, bars)
                        if one.process.poll() is not None:
                            active.remove(one)
                            _close(one)
                            bars.remove_task(one.task)
                            bars.advance(whole)
                            self._finish(one)
            finally:
                _end(active)

    def _start(self, run: Run, bars: Progress) -> _Active:
        config = self.folder.config(run, self.plan, self.base)
        folder = self.folder.prepare(run, self.plan, config)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with (folder / OUTPUT_FILE).open("wb") as output:
            process = subprocess.Popen(
                [*self.worker, str(folder)],
                stdin=subprocess.PIPE,  # it ends when this process does
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(self.lock,),
                env={**os.environ, **threads},
                start_new_session=True,  # an interrupt is ours to pass on
            )
        task = bars.add_task(run.name, total=config["num-rounds"], state="starting")
        return _Active(run, folder, process, task)

    def _finish(self, one: _Active) -> None:
        if self.folder.is_done(one.run):
            line = last_round(one.folder) or {}
            accuracy = 100 * (line.get("accuracy") or 0.0)
            text = f"{one.run.name}: accuracy {accuracy:.2f} % after round {line.get('round')}"
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        why = self.folder.failure(one.run)
        if why is None:
            why = f"its process ended with status {one.process.returncode} and said nothing"
            (one.folder / FAILED_FILE).write_text(why + "\n", encoding="utf-8")
        self.failed[one.run.name] = why
        text = f"{one.run.name} failed: {why} (more in {one.folder / OUTPUT_FILE})"
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def last_round(folder: Path) -> dict[str, Any] | None:
    """Return the last complete line of a run log that may still grow; None if there is none."""
    try:
        lines = (folder / RUN_LOG).read_bytes().rsplit(b"\n", 2)
        content = json.loads(lines[-2])
    except (OSError, IndexError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _show(one: _Active, bars: Progress) -> None:
    line = last_round(one.folder)
    if line is not None:
        state = f"accuracy {100 * (line.get('accuracy') or 0.0):.1f} %"
        bars.update(one.task, completed=line.get("round", 0), state=state)


def _close(one: _Active) -> None:
    if one.process.stdin:
        one.process.stdin.close()


def _end(active: Sequence[_Active]) -> None:
    """End workers that are left over: they watch their standard input."""
    for one in active:
        _close(one)
    for one in active:
        try:
            one.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
