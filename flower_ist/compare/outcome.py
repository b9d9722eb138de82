"""From finished runs to the files that a person reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flower_ist.compare.analyze import Comparison, analyze
from flower_ist.compare.curves import best_validation, points
from flower_ist.compare.figures import draw_all
from flower_ist.compare.folder import ComparisonFolder, write_whole
from flower_ist.compare.options import command_of
from flower_ist.compare.page import to_html
from flower_ist.compare.plan import Plan, PlanError, Run, grid, slug
from flower_ist.compare.tables import to_csv, to_json
from flower_ist.compare.usage import Value
from flower_ist.runs.log import read_run

CHOICES_FILE = "choices.json"
CSV_FILE = "compare.csv"
JSON_FILE = "compare.json"
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Choice:
    """What the sweep chose for a strategy: settings, and their validation accuracy."""

    settings: Mapping[str, Value]
    validation_accuracy: float | None


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
        choosable = grid(plan, name)
        if len(choosable) == 1:
            choices[name] = Choice(choosable[0], None)
            continue
        tried: list[Choice] = []
        for settings in choosable:
            run = Run(name, settings, 0)
            if folder.is_done(run):
                tried.append(Choice(settings, best_validation(read_run(folder.run_folder(run)))))
        if any(choice.validation_accuracy is None for choice in tried):
            raise PlanError(
                "Settings are chosen by validation accuracy, but the runs have none: "
                "give --set validation-share=0.2."
            )
        if tried:
            choices[name] = max(tried, key=lambda choice: choice.validation_accuracy or 0.0)
    content = {name: vars(choice) for name, choice in choices.items()}
    write_whole(folder.path / CHOICES_FILE, json.dumps(content, indent=2) + "\n")
    return choices


def write_outcome(
    folder: ComparisonFolder,
    plan: Plan,
    choices: Mapping[str, Choice],
    failed: Mapping[str, str],
) -> Comparison:
    """Compute the figures of all finished runs and write table, pictures and report.

    Raises:
        PlanError: no run was finished.
        RunLogError: a run log is damaged.
    """
    logs = {}
    for name, choice in choices.items():
        done = [run for run in _seeds(plan, name, choice) if folder.is_done(run)]
        runs = [read_run(folder.run_folder(run)) for run in done]
        logs[name] = [lines for lines in runs if points(lines)]
    logs = {name: runs for name, runs in logs.items() if runs}
    if not logs:
        raise PlanError(f"No run was finished: see {folder.path / 'runs'}.")
    settings = {name: slug(choice.settings) for name, choice in choices.items()}
    comparison = analyze(logs, settings, plan.target_accuracy)
    facts = json.loads(plan.to_json())
    pictures = draw_all(comparison)
    for name, png in pictures.items():
        write_whole(folder.path / name, png)
    write_whole(folder.path / CSV_FILE, to_csv(comparison))
    write_whole(folder.path / JSON_FILE, to_json(comparison, facts, failed))
    page = to_html(comparison, facts, command_of(plan), pictures, failed)
    write_whole(folder.path / REPORT_FILE, page)
    return comparison


def _seeds(plan: Plan, name: str, choice: Choice) -> Sequence[Run]:
    return [Run(name, choice.settings, seed) for seed in range(plan.seeds)]
