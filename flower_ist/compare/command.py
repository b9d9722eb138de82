"""The body of ``flower-ist compare``: plan, run, choose, run again, report."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from flower_ist.compare.execute import Executor
from flower_ist.compare.folder import ComparisonFolder, read_plan
from flower_ist.compare.options import parse_capacity, parse_settings, parse_sweep
from flower_ist.compare.outcome import (
    REPORT_FILE,
    choose,
    final_runs,
    tuning_runs,
    write_outcome,
)
from flower_ist.compare.plan import CENTRAL, DEFAULT_STRATEGIES, Plan, PlanError, slug
from flower_ist.compare.shards import fingerprint, pool
from flower_ist.compare.tables import front_sentences, percent, to_tables

# Long enough that training is most of the work, and short enough that eight strategies with three
# seeds are done in minutes. And each strategy as it was published: what the app adds to all of them
# has to be asked for.
DEFAULT_SETTINGS: Mapping[str, Any] = {
    "local-steps": 80,
    "validation-share": 0.2,
    "standardize": False,
    "replay": False,
    "ridge-blend": 0.0,
    "wire-dtype": "float32",
}
DEFAULT_ROUNDS = 10


def make_plan(
    app: Path = Path(),
    data: Path | None = None,
    strategies: str = ",".join(DEFAULT_STRATEGIES),
    clients: int = 4,
    rounds: int = DEFAULT_ROUNDS,
    seeds: int = 3,
    engine: str = "inprocess",
    settings: Sequence[str] = (),
    sweep: Sequence[str] = (),
    capacity: str = "",
    target_accuracy: float | None = None,
) -> Plan:
    """Return a checked plan from the options of the command line.

    Raises:
        PlanError: it cannot be used.
        ShardError: a shard is missing or damaged.
    """
    swept, given = parse_sweep(sweep), parse_settings(settings)
    own = {key: value for key, value in DEFAULT_SETTINGS.items() if key not in swept}
    if "local-epochs" in {**swept, **given} and "local-steps" not in swept:
        own["local-steps"] = 0  # epochs decide
    plan = Plan(
        app=str(app.absolute()),
        data="" if data is None else str(data.absolute()),
        data_sha256="",
        strategies=tuple(strategies.split(",")),
        clients=clients,
        rounds=rounds,
        seeds=seeds,
        engine=engine,
        settings={**own, **given},
        sweep=swept,
        capacity=parse_capacity(capacity),
        target_accuracy=target_accuracy,
    )
    plan.check()
    return replace(plan, data_sha256=fingerprint(plan.data, plan.clients))


def repeated_plan(source: Path) -> Plan:
    """Return the plan of a comparison that is to be repeated.

    Raises:
        PlanError: there is none, or its tokens have changed.
        ShardError: a shard is missing or damaged.
    """
    plan = read_plan(source)
    if fingerprint(plan.data, plan.clients) != plan.data_sha256:
        raise PlanError(
            f"The tokens are not those that {source} was made with: start a comparison of its own "
            "with the command in its report."
        )
    return plan


def compare(plan: Plan, out: Path, console: Console, jobs: int | None = None) -> bool:
    """Do a comparison, or go on with one, and write its report.

    Args:
        plan: what to compare.
        out: folder of the comparison.
        console: where progress and tables go.
        jobs: runs at a time; as many as cores if None. With the engine ``flwr``: one.

    Returns:
        Whether every run was finished.

    Raises:
        PlanError: the plan cannot be used or no run was finished.
        ShardError: a shard is missing or damaged.
        RunLogError: a run log is damaged.
    """
    began = time.monotonic()
    folder = ComparisonFolder(out)
    with folder.locked() as lock:
        plan = folder.adopt(plan)
        jobs = 1 if plan.engine == "flwr" else jobs or os.cpu_count() or 1
        executor = Executor(folder, plan, read_config(Path(plan.app)), jobs, lock, console)
        for run in (*tuning_runs(plan), *final_runs(plan, choose(folder, plan))):
            folder.config(run, plan, executor.base)  # refuses unknown settings before anything runs
        if CENTRAL in plan.strategies and plan.data:
            pool(plan.data, plan.clients, folder.path / "pooled")
        executor.execute(tuning_runs(plan), "sweep")
        choices = choose(folder, plan)
        for name, choice in choices.items():
            if choice.validation_accuracy is not None:
                accuracy = percent(choice.validation_accuracy)
                text = f"{name}: {slug(choice.settings)} is best on validation, {accuracy} %"
                console.print(text, markup=False, highlight=False)
        executor.execute(final_runs(plan, choices), "comparison")
        comparison = write_outcome(folder, plan, choices, executor.failed)
    for table in to_tables(comparison):
        console.print(table)
    console.print(f"Target: {percent(comparison.target_accuracy)} %. Best for the bytes:")
    for sentence in front_sentences(comparison):
        console.print(f"  {sentence}", markup=False, highlight=False)
    for name, why in executor.failed.items():
        console.print(f"{name} failed: {why}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{time.monotonic() - began:.0f} s. Report: {folder.path / REPORT_FILE}", soft_wrap=True
    )
    return not executor.failed


def read_config(app: Path) -> dict[str, Any]:
    """Return the run config of an app's pyproject.toml, without importing the app.

    Raises:
        PlanError: there is none.
    """
    file = app / "pyproject.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        return dict(content["tool"]["flwr"]["app"]["config"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise PlanError(f"There is no Flower app in {app}: {file} has no run config.") from err
