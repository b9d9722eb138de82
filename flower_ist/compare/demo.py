"""The main job on embedded real data: IST, then FedAvg, each a run of its own.

With Ray they are real ``flwr run`` simulations. Without it the clients run one after another in a
process beside this one; the bytes are the same.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TimeElapsedColumn

from flower_ist.compare.folder import ComparisonFolder
from flower_ist.compare.plan import Plan, PlanError, Run
from flower_ist.compare.runner import last_round, print_into, run_app
from flower_ist.console import print_text, text_column
from flower_ist.errors import first_line
from flower_ist.files import make_folder
from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LaunchError
from flower_ist.runs.report import compare, plot, summarize, to_table
from flower_ist.tokens.demo import MAX_CLIENTS

_POLL_SECONDS = 0.2


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
        LaunchError: a run failed, with its cause.
        PlanError: an argument is of no use; nothing was started.
    """
    if find_spec("matplotlib") is None:
        raise PlanError("The demo draws a plot: first, pip install 'flower-ist[plot]'.")
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
    log, spawn = folder / "flower.log", multiprocessing.get_context("spawn")
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(1, spawn, print_into, (log,)) as pool,
    ):
        for strategy, run in zip(strategies, runs, strict=True):
            one = Run(strategy, {}, seed=0)
            config = {**ComparisonFolder(folder).config(one, plan), "output-dir": str(run)}
            task = progress.add_task(strategy, total=config["num-rounds"], state="starting")
            future = pool.submit(run_app, app, engine, one.clients(plan), config)
            while wait([future], _POLL_SECONDS).not_done:
                _show(progress, task, run)
            _show(progress, task, run)
            try:
                future.result()
            except Exception as err:  # an app may raise anything
                sentence = f"{strategy} failed: {first_line(err)}.\nMore is in {log}."
                raise LaunchError(sentence) from err
    return _outcome(folder, runs, console)


def _show(progress: Progress, task: TaskID, run: Path) -> None:
    if (last := last_round(run)) is None:
        return
    state, shown = f"accuracy {100 * (last['accuracy'] or 0):.1f} %", progress.tasks[task]
    if last["round"] > shown.completed and not progress.console.is_terminal:
        # Where there is no bar that moves, each round gets a line.
        text = f"{run.name} round {last['round']}/{shown.total:.0f}: {state}"
        print_text(progress.console, text)
    progress.update(task, completed=last["round"], state=state)


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
