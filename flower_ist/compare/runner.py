"""Do the runs of a comparison, several at a time, each in a process of its own.

Each run has a pool of one process, so that a process that is killed takes no other run with it. All
hold one end of a pipe, and end when the comparison closes the other one or is gone itself.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from flower_ist.compare.folder import (
    DONE_FILE,
    FAILED_FILE,
    OUTPUT_FILE,
    ComparisonFolder,
    share_lock,
)
from flower_ist.compare.plan import Plan, Run
from flower_ist.console import print_text, text_column
from flower_ist.files import output_file, write_file
from flower_ist.runs.log import RUN_LOG, RunLogError, read_run

Config = Mapping[str, Any]
_POLL_SECONDS = 0.2
_RUN_SECONDS = 24 * 3600.0
_LOG_LINES = 200
_KILLED = "its process was killed, perhaps because the memory was full"
# Numeric libraries read this when they are imported: one core for each run.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# What a run's process does if the comparison is over before the run is.
_at_the_end: list[Callable[[], None]] = []


def do_run(app: Path, engine: str, clients: int, config: Config) -> bool:
    """Do a run of an app, and leave ``done.json`` or ``failed.txt`` in its ``output-dir``.

    Returns:
        Whether it was finished.
    """
    folder = Path(config["output-dir"])
    try:
        began, cpu = time.monotonic(), time.process_time()
        (_run_flwr if engine == "flwr" else _run_here)(app, clients, config)
        seconds = {"wall": time.monotonic() - began, "cpu": time.process_time() - cpu}
        write_file(folder / DONE_FILE, json.dumps({"seconds": seconds}) + "\n")
    except Exception as err:  # whatever it is, the other runs go on and the reader gets a sentence
        logging.getLogger("flwr").exception("The run failed.")
        # What follows the first line of an error is a log, which is in the output.
        text = str(err).strip().partition("\n")[0].rstrip(":") or type(err).__name__
        write_file(folder / FAILED_FILE, text + "\n")
        return False
    return True


def _run_here(app: Path, clients: int, config: Config) -> None:
    from threadpoolctl import threadpool_limits

    from flower_ist.runs.app import load_app, run_in_process

    threadpool_limits(1)
    loaded = load_app(app)
    run_in_process(loaded.server_app, loaded.client_app, clients, config)


def _run_flwr(app: Path, clients: int, config: Config) -> None:
    from flower_ist.runs.launch import LaunchError, LocalFlower, tail

    log = Path(config["output-dir"]) / RUN_LOG

    def over() -> bool:
        return log.exists() and len(log.read_bytes().splitlines()) > config["num-rounds"]

    flower = LocalFlower()
    _at_the_end.append(flower.close)
    with flower:
        try:
            flower.wait(flower.submit(app, config, clients), _RUN_SECONDS, on_poll=over)
        except LaunchError:
            # Flower's own reason is in its log, which is gone with its home.
            logging.getLogger("flwr").error("%s", tail(flower.log_file, _LOG_LINES))
            raise


@dataclass
class Runner:
    """Does runs that are not done yet, and shows how far they are."""

    folder: ComparisonFolder  # locked
    plan: Plan
    jobs: int  # most processes at a time
    console: Console
    task: Callable[[Path, str, int, Config], bool] = do_run
    failed: dict[str, str] = field(default_factory=dict)  # name -> why, of those that failed now
    tells: bool = True  # how accurate each run is; of those that fail it always tells

    def execute(self, runs: Sequence[Run], title: str) -> None:
        """Do some runs. One that failed before is tried again; one that fails stops no other."""
        unique = {run.name: run for run in runs}
        waiting = [run for run in unique.values() if not self.folder.is_done(run)]
        if not waiting:
            return
        os.environ.update(_ONE_THREAD)
        held, end = multiprocessing.Pipe(duplex=False)
        # An interrupt is ours to pass on: threads block it, and so do the processes they start.
        block = (signal.SIG_BLOCK, {signal.SIGINT})
        threads = ThreadPoolExecutor(self.jobs, "run", signal.pthread_sigmask, block)
        with held, end, _progress(self.console) as bars:
            done = len(unique) - len(waiting)
            whole = bars.add_task(title, total=len(unique), completed=done, state="runs")
            tasks = {run.name: bars.add_task(run.name, visible=False, state="") for run in waiting}
            pending = {threads.submit(self._do, run, held): run for run in waiting}
            try:
                while pending:
                    over, _ = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                    for future, run in pending.items():
                        if future.running():
                            bars.update(tasks[run.name], visible=True, **self._progress_of(run))
                    for future in over:
                        future.result()
                        run = pending.pop(future)
                        self._tell(run)
                        bars.update(tasks[run.name], visible=False)
                        bars.advance(whole)
            finally:
                end.close()
                threads.shutdown(cancel_futures=True)

    def _do(self, run: Run, held: Connection) -> None:
        """Do a run in a process of its own, and wait for its end."""
        config = self.folder.config(run, self.plan)
        folder = self.folder.prepare(run, config)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn, _begin, (folder, held)) as pool:
            given = (Path(self.plan.app), self.plan.engine, run.clients(self.plan), config)
            with suppress(BrokenProcessPool):  # it was killed, and left no word
                pool.submit(self.task, *given).result()

    def _progress_of(self, run: Run) -> dict[str, Any]:
        total = run.config(self.plan)["num-rounds"]
        line = last_round(self.folder.run_folder(run))
        if line is None:
            return {"total": total, "state": "starting"}
        state = f"accuracy {100 * (line.get('accuracy') or 0.0):.1f} %"
        return {"total": total, "completed": line["round"], "state": state}

    def _tell(self, run: Run) -> None:
        folder = self.folder.run_folder(run)
        if self.folder.is_done(run):
            line = last_round(folder) or {}
            accuracy = 100 * (line.get("accuracy") or 0.0)
            if not self.tells:
                return
            text = f"{run.name}: accuracy {accuracy:.2f} % after round {line.get('round')}"
        else:
            why = self.folder.failure(run)
            if why is None:
                why = _KILLED
                write_file(folder / FAILED_FILE, f"{why}\n")
            self.failed[run.name] = why
            text = f"{run.name} failed: {why} (more in {folder / OUTPUT_FILE})"
        print_text(self.console, text)


def _begin(folder: Path, held: Connection) -> None:
    """Prepare a run's process: its end, its share of the lock, its output."""
    threading.Thread(target=_end_with_comparison, args=(held,), daemon=True).start()
    share_lock(folder.parents[1])
    with output_file(folder / OUTPUT_FILE) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)


def _end_with_comparison(held: Connection) -> None:
    with suppress(EOFError):
        held.recv_bytes()  # nothing is ever sent: this ends when the comparison does
    for close in _at_the_end:
        close()
    os._exit(1)


def _progress(console: Console) -> Progress:
    columns = (
        "{task.description}",
        "{task.completed:.0f}/{task.total:.0f}",
        "{task.fields[state]}",
    )
    name, count, state = map(text_column, columns)
    bar = BarColumn(bar_width=20)
    hidden = not console.is_terminal
    return Progress(name, bar, count, state, TimeElapsedColumn(), console=console, disable=hidden)


def last_round(folder: Path) -> dict[str, Any] | None:
    """Return the last whole line of a run log that may still grow; None if there is none."""
    try:
        return read_run(folder)[-1]
    except RunLogError:
        return None
