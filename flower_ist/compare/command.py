"""What ``flower-ist compare`` does with a plan: sweep, choose, run, report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from flower_ist.compare.analyze import Comparison, analyze, best_validation, points
from flower_ist.compare.figures import draw_all
from flower_ist.compare.folder import POOLED, ComparisonFolder
from flower_ist.compare.options import command_of
from flower_ist.compare.plan import CENTRAL, Plan, PlanError, Run, grid, slug
from flower_ist.compare.report import front_sentences, to_csv, to_html, to_json, to_tables
from flower_ist.compare.runner import Runner
from flower_ist.compare.shards import pool, token_bytes
from flower_ist.compare.usage import Value
from flower_ist.console import print_text
from flower_ist.files import write_file
from flower_ist.runs.app_import import import_from
from flower_ist.runs.log import read_run
from flower_ist.tables import percent

CHOICES_FILE = "choices.json"
CSV_FILE = "compare.csv"
JSON_FILE = "compare.json"
REPORT_FILE = "report.html"
_NO_VALIDATION = (
    "Settings are chosen by validation accuracy, but the runs have none: give --set "
    "validation-share=0.2."
)


@dataclass(frozen=True)
class Choice:
    """What the sweep chose for a strategy: settings, and their validation accuracy."""

    settings: Mapping[str, Value]
    validation_accuracy: float | None


def compare(plan: Plan, out: Path, console: Console, jobs: int | None = None) -> bool:
    """Make a comparison, or continue one, and write its report.

    Args:
        plan: what to compare.
        out: folder of the comparison.
        console: where progress and tables go.
        jobs: runs at a time; None: as many as cores. The engine ``flwr`` does one.

    Returns:
        Whether every run was finished.

    Raises:
        FlowerIstError: the app refuses a setting, and nothing was written; a shard or a run log is
            damaged; or no run was finished.
    """
    began = time.monotonic()
    folder = ComparisonFolder(out)
    check_settings(folder, plan)
    with folder.locked():
        plan = folder.adopt(plan)
        jobs = 1 if plan.engine == "flwr" else jobs or os.cpu_count() or 1
        runner = Runner(folder, plan, jobs, console)
        if CENTRAL in plan.strategies and plan.data:
            pool(plan.data, plan.clients, folder.path / POOLED)
        runner.execute(tuning_runs(plan), "sweep")
        choices = choose(folder, plan)
        for name, choice in choices.items():
            if choice.validation_accuracy is not None:
                accuracy = percent(choice.validation_accuracy)
                chosen = f"{name}: {slug(choice.settings)} is best on validation, {accuracy} %"
                print_text(console, chosen)
        runner.execute(final_runs(plan, choices), "comparison")
        comparison = write_outcome(folder, plan, choices, runner.failed)
    for table in to_tables(comparison):
        console.print(table)
    print_text(console, f"Target: {percent(comparison.target_accuracy)} %. Best for the bytes:")
    for sentence in front_sentences(comparison):
        print_text(console, f"  {sentence}")
    for name, why in runner.failed.items():
        print_text(console, f"{name} failed: {why}")
    print_text(console, f"{time.monotonic() - began:.0f} s. Report: {folder.path / REPORT_FILE}")
    return not runner.failed


def check_settings(folder: ComparisonFolder, plan: Plan) -> None:
    """Have the app check names, types and values of the settings of all runs.

    Raises:
        FlowerIstError: it has no such setting, or cannot use a value.
    """
    model = import_from(Path(plan.app), f"{plan.usage.package}.settings").Settings
    for name in plan.strategies:
        choices = grid(plan, name)
        for choice in choices:
            config = folder.config(Run(name, choice, 0), plan)
            model.from_run_config(config)
            if len(choices) > 1 and not config.get("validation-share"):
                raise PlanError(_NO_VALIDATION)


def tuning_runs(plan: Plan) -> list[Run]:
    """Return the runs of the sweep: every choice with the first seed, where there is a choice."""
    return [
        Run(name, choice, 0)
        for name in plan.strategies
        if len(grid(plan, name)) > 1
        for choice in grid(plan, name)
    ]


def final_runs(plan: Plan, choices: Mapping[str, Choice]) -> list[Run]:
    """Return the chosen settings' runs with all seeds; the first seed's was in the sweep."""
    return [
        Run(name, choices[name].settings, seed)
        for seed in range(plan.seeds)
        for name in plan.strategies
        if name in choices
    ]


def choose(folder: ComparisonFolder, plan: Plan) -> dict[str, Choice]:
    """Return for each strategy the settings with the best validation accuracy, and store them.

    The first of equals is taken. A choice whose run failed is out; a strategy with none is left
    out. Test accuracies have no part in it.

    Raises:
        PlanError: there is something to choose, but the logs have no validation accuracy.
    """
    choices: dict[str, Choice] = {}
    for name in plan.strategies:
        runs = [Run(name, settings, 0) for settings in grid(plan, name)]
        if len(runs) == 1:
            choices[name] = Choice(runs[0].choice, None)
            continue
        tried = [
            Choice(run.choice, best_validation(read_run(folder.run_folder(run))))
            for run in runs
            if folder.is_done(run)
        ]
        if any(choice.validation_accuracy is None for choice in tried):
            raise PlanError(_NO_VALIDATION)
        if tried:
            choices[name] = max(tried, key=lambda choice: choice.validation_accuracy or 0.0)
    content = {name: vars(choice) for name, choice in choices.items()}
    write_file(folder.path / CHOICES_FILE, json.dumps(content, indent=2) + "\n")
    return choices


def write_outcome(
    folder: ComparisonFolder,
    plan: Plan,
    choices: Mapping[str, Choice],
    failed: Mapping[str, str],
) -> Comparison:
    """Compute the figures of all finished runs; write tables, pictures and report.

    Raises:
        PlanError: no run was finished.
        RunLogError: a run log is damaged.
    """
    logs: dict[str, list[Any]] = {}
    for run in final_runs(plan, choices):
        if folder.is_done(run) and points(lines := read_run(folder.run_folder(run))):
            logs.setdefault(run.strategy, []).append(lines)
    if not logs:
        raise PlanError(f"No run was finished: see {folder.path / 'runs'}.")
    settings = {name: slug(choice.settings) for name, choice in choices.items()}
    ordered = {name: logs[name] for name in plan.strategies if name in logs}
    uploaded = token_bytes(plan.data, plan.clients)
    comparison = analyze(ordered, settings, plan.target_accuracy, uploaded)
    facts = json.loads(plan.to_json())
    pictures = draw_all(comparison)
    files: dict[str, bytes | str] = {
        **pictures,
        CSV_FILE: to_csv(comparison),
        JSON_FILE: to_json(comparison, facts, failed),
        REPORT_FILE: to_html(comparison, facts, command_of(plan), pictures, failed),
    }
    for name, content in files.items():
        write_file(folder.path / name, content)
    return comparison
