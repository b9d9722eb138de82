"""The main job on embedded real data: IST, then FedAvg, each a real ``flwr run`` simulation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flower_ist.demo_tokens import MAX_CLIENTS
from flower_ist.launch import LaunchError, LocalFlower
from flower_ist.report import compare, plot, summarise, to_table
from flower_ist.runlog import RunLogError, read_run

STRATEGIES = ("ist", "fedavg")
_RUN_SECONDS = 900.0


def run_demo(
    out: Path, strategies: Sequence[str], num_clients: int, num_rounds: int, console: Console
) -> Path:
    """Run the strategies one after the other, then print the table and draw the plot.

    Args:
        out: a folder for this and further demos; each gets a new folder below it.
        strategies: names as in the run config.
        num_clients: virtual SuperNodes.
        num_rounds: server rounds of each run.
        console: where progress and the table go.

    Returns:
        The plot's file.

    Raises:
        LaunchError: a run failed.
        ValueError: an argument is of no use.
    """
    app = find_app()
    _check(strategies, num_clients)
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
            task = progress.add_task(strategy, total=num_rounds, state="starting Flower and Ray")

            def show(task: TaskID = task, run: Path = run) -> bool:
                try:
                    last = read_run(run)[-1]
                except RunLogError:
                    return False
                state = f"accuracy {100 * (last['accuracy'] or 0):.1f} %"
                if last["round"] > progress.tasks[task].completed and not console.is_terminal:
                    # A log has no bar that moves: it gets a line a round.
                    console.print(f"{run.name} round {last['round']}/{num_rounds}: {state}")
                progress.update(task, completed=last["round"], state=state)
                return bool(last["round"] == num_rounds)

            settings = {
                "strategy": strategy,
                "num-rounds": num_rounds,
                "min-train-nodes": min(2, num_clients),
                "min-available-nodes": num_clients,
                "output-dir": str(run),
            }
            run_id = flower.submit(app, settings, num_clients)
            flower.wait(run_id, _RUN_SECONDS, on_poll=show)
    summaries = [summarise(run) for run in runs]
    console.print(to_table(summaries))
    for summary in summaries[:-1]:
        console.print(compare(summary, summaries[-1]))
    picture = folder / "accuracy-by-bytes.png"
    plot(runs, picture)
    console.print(f"Run logs, models and the plot are in {folder}", soft_wrap=True)
    return picture


def _check(strategies: Sequence[str], num_clients: int) -> None:
    """Refuse at once what would fail after half a minute.

    Raises:
        ValueError: with one sentence.
    """
    if find_spec("matplotlib") is None:
        raise ValueError("The demo draws a plot: pip install 'flower-ist[plot]' first.")
    if not strategies or len(set(strategies)) < len(strategies):
        raise ValueError(f"The demo runs each strategy once, not {','.join(strategies)!r}.")
    for strategy in strategies:
        if strategy not in STRATEGIES:
            raise ValueError(
                f"There is no strategy {strategy!r}: choose from {', '.join(STRATEGIES)}."
            )
    if num_clients > MAX_CLIENTS:
        raise ValueError(f"The demo tokens serve at most {MAX_CLIENTS} clients, not {num_clients}.")


def find_app() -> Path:
    """Return the checkout that this package belongs to: it holds the apps that Flower bundles.

    Raises:
        LaunchError: this package was installed without its checkout.
    """
    root = Path(__file__).absolute().parent.parent
    if not (root / "server_app" / "app.py").exists():
        raise LaunchError(
            "The demo runs the apps of a checkout: clone the repository and use 'make demo'."
        )
    return root
