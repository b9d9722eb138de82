"""The main job on embedded real data: IST, then FedAvg, each a run of its own.

With Ray they are real ``flwr run`` simulations. Without it the clients run one after another in a
process; the bytes are the same.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TimeElapsedColumn

from flower_ist.compare.plan import Plan, PlanError, Run
from flower_ist.console import print_text, text_column
from flower_ist.files import make_folder, output_file, write_file
from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LaunchError, LocalFlower, tail
from flower_ist.runs.log import RunLogError, read_run
from flower_ist.runs.report import compare, plot, summarize, to_table
from flower_ist.tokens.demo import MAX_CLIENTS

# Limits for a machine that does much else: each wait ends as soon as there is an answer. A run may
# take as long as it likes if a round ends now and then.
_QUIET_SECONDS = 1800.0
_NODE_SECONDS = 600.0
_POLL_SECONDS = 0.2
_LOG_LINES = 200

Do = Callable[[Mapping[str, Any], int, Callable[[], int]], None]


def run_demo(
    out: Path, strategies: Sequence[str], num_clients: int, num_rounds: int, console: Console
) -> Path:
    """Run the strategies one after the other, then print the table and draw the plot.

    Args:
        out: a folder for this and further demos; each gets a new folder in it.
        strategies: names as in the run config, or those that a comparison adds to them.
        num_clients: virtual clients.
        num_rounds: server rounds of each run; closed forms take one.
        console: where progress and the table go.

    Returns:
        The plot's file.

    Raises:
        LaunchError: a run failed in Flower's simulation, with its cause.
        PlanError: an argument is of no use; nothing was started.
    """
    if num_clients > MAX_CLIENTS:
        raise PlanError(f"The demo tokens serve at most {MAX_CLIENTS} clients, not {num_clients}.")
    app = find_app()
    engine = "inprocess" if find_spec("ray") is None else "flwr"
    plan = Plan(str(app), "", "", tuple(strategies), num_clients, num_rounds, 1, engine)
    plan.check()
    folder = out.absolute() / datetime.now().strftime("%Y%m%d-%H%M%S")
    make_folder(folder)
    if engine == "inprocess":
        print_text(
            console,
            "Ray is not installed, so the clients take turns in one process. For Flower's own "
            "simulation: pip install 'flower-ist[simulation]'.",
        )
    runs = [folder / strategy for strategy in strategies]
    columns = (
        text_column("{task.description:8}"),
        BarColumn(),
        text_column("{task.completed:.0f}/{task.total:.0f} rounds"),
        text_column("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    log = folder / "flower.log"
    with (
        Progress(*columns, console=console) as progress,
        _here(app, log) if engine == "inprocess" else _flower(app, log) as do,
    ):
        for strategy, run in zip(strategies, runs, strict=True):
            one = Run(strategy, {}, seed=0)
            settings = {**_app_config(plan), **one.config(plan), "output-dir": str(run)}
            total = settings["num-rounds"]
            task = progress.add_task(strategy, total=total, state="starting")

            def show(task: TaskID = task, run: Path = run, total: int = total) -> int:
                try:
                    last = read_run(run)[-1]
                except RunLogError:
                    return -1
                state = f"accuracy {100 * (last['accuracy'] or 0):.1f} %"
                if last["round"] > progress.tasks[task].completed and not console.is_terminal:
                    # Where there is no bar that moves, each round gets a line.
                    print_text(console, f"{run.name} round {last['round']}/{total}: {state}")
                progress.update(task, completed=last["round"], state=state)
                return int(last["round"])

            do(settings, one.clients(plan), show)
    return _outcome(folder, runs, console)


def _outcome(folder: Path, runs: Sequence[Path], console: Console) -> Path:
    summaries = [summarize(run) for run in runs]
    console.print(to_table(summaries))
    for summary in summaries[:-1]:
        print_text(console, compare(summary, summaries[-1]))
    print_text(
        console,
        "These bytes are the messages'. Nobody fetched an app bundle here, or waited on a line: "
        "docs/measuring.md says what a device pays for that.",
    )
    picture = folder / "accuracy-by-bytes.png"
    plot(runs, picture)
    print_text(console, f"Run logs, models and the plot are in {folder}")
    return picture


def _app_config(plan: Plan) -> Mapping[str, Any]:
    """Return the settings that the demo changes; in this process, Flower adds no others."""
    if plan.engine == "inprocess":
        return {**plan.usage.config, "node-timeout": 0.0}
    return {"node-timeout": _NODE_SECONDS}


@contextmanager
def _flower(app: Path, log: Path) -> Iterator[Do]:
    """Runs in Flower's simulation; of one that fails, Flower's log is kept."""
    with LocalFlower() as flower:

        def do(settings: Mapping[str, Any], clients: int, show: Callable[[], int]) -> None:
            try:
                run_id = flower.submit(app, settings, clients)
                last = settings["num-rounds"]
                flower.wait(run_id, _QUIET_SECONDS, lambda: show() == last, show)
            except LaunchError as err:
                write_file(log, tail(flower.log_file, _LOG_LINES) + "\n")
                raise LaunchError(f"{err}\nMore is in {log}.") from err
            show()

        yield do


@contextmanager
def _here(app: Path, log: Path) -> Iterator[Do]:
    """Runs in a process beside this one, whose output is the log."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, _print_into, (log,)) as pool:

        def do(settings: Mapping[str, Any], clients: int, show: Callable[[], int]) -> None:
            future = pool.submit(_run_app, app, settings, clients)
            while wait([future], _POLL_SECONDS).not_done:
                show()
            try:
                future.result()
            except Exception as err:
                reason = " ".join(f"{type(err).__name__}: {err}".split())
                raise LaunchError(f"The run failed: {reason}\nMore is in {log}.") from err
            show()

        yield do


def _print_into(log: Path) -> None:
    with output_file(log) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)


def _run_app(app: Path, settings: Mapping[str, Any], clients: int) -> None:
    from flower_ist.runs.app import load_app, run_in_process

    loaded = load_app(app)
    run_in_process(loaded.server_app, loaded.client_app, clients, settings)
