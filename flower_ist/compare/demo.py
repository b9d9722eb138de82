"""The main job on embedded real data: IST, then FedAvg, each a real ``flwr run`` simulation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flower_ist.compare.plan import Plan, PlanError, Run
from flower_ist.runs.launch import LaunchError, LocalFlower
from flower_ist.runs.log import RunLogError, read_run
from flower_ist.runs.report import compare, plot, summarize, to_table
from flower_ist.tokens.demo import MAX_CLIENTS

_RUN_SECONDS = 900.0


def run_demo(
    out: Path, strategies: Sequence[str], num_clients: int, num_rounds: int, console: Console
) -> Path:
    """Run the strategies one after the other, then print the table and draw the plot.

    Args:
        out: a folder for this and further demos; each gets a new folder in it.
        strategies: names as in the run config, or those that a comparison adds to them.
        num_clients: virtual SuperNodes.
        num_rounds: server rounds of each run; closed forms take one.
        console: where progress and the table go.

    Returns:
        The plot's file.

    Raises:
        LaunchError: a run failed.
        PlanError: an argument is of no use; nothing was started.
    """
    if find_spec("matplotlib") is None or find_spec("ray") is None:
        raise PlanError(
            "The demo runs Flower's simulation and draws a plot: first, in the checkout, "
            "pip install -e '.[plot,simulation]'."
        )
    if num_clients > MAX_CLIENTS:
        raise PlanError(f"The demo tokens serve at most {MAX_CLIENTS} clients, not {num_clients}.")
    app = find_app()
    plan = Plan(str(app), "", "", tuple(strategies), num_clients, num_rounds, seeds=1)
    plan.check()
    folder = out.absolute() / datetime.now().strftime("%Y%m%d-%H%M%S")
    runs = [folder / strategy for strategy in strategies]
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} rounds"),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress, LocalFlower() as flower:
        for strategy, run in zip(strategies, runs, strict=True):
            one = Run(strategy, {}, seed=0)
            settings = {**one.config(plan), "output-dir": str(run)}
            total = settings["num-rounds"]
            task = progress.add_task(strategy, total=total, state="starting Flower and Ray")

            def show(task: TaskID = task, run: Path = run, total: int = total) -> bool:
                try:
                    last = read_run(run)[-1]
                except RunLogError:
                    return False
                state = f"accuracy {100 * (last['accuracy'] or 0):.1f} %"
                if last["round"] > progress.tasks[task].completed and not console.is_terminal:
                    # Where there is no bar that moves, each round gets a line.
                    console.print(f"{run.name} round {last['round']}/{total}: {state}")
                progress.update(task, completed=last["round"], state=state)
                return bool(last["round"] == total)

            run_id = flower.submit(app, settings, one.clients(plan))
            flower.wait(run_id, _RUN_SECONDS, on_poll=show)
    summaries = [summarize(run) for run in runs]
    console.print(to_table(summaries))
    for summary in summaries[:-1]:
        console.print(compare(summary, summaries[-1]))
    picture = folder / "accuracy-by-bytes.png"
    plot(runs, picture)
    console.print(f"Run logs, models and the plot are in {folder}", soft_wrap=True)
    return picture


def find_app() -> Path:
    """Return the checkout that this package belongs to: it holds the apps that Flower bundles.

    Raises:
        LaunchError: this package was installed without its checkout.
    """
    root = Path(__file__).absolute().parents[2]
    if not (root / "server_app" / "app.py").exists():
        raise LaunchError(
            "The demo runs the apps of a checkout: clone the repository and use 'make demo'."
        )
    return root
