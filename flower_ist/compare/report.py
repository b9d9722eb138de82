"""The figures of a comparison as tables, CSV, JSON and one HTML page that loads nothing."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.table import Table

from flower_ist import tables
from flower_ist.compare.analyze import BUDGET_SHARES, Comparison, Result, Spread
from flower_ist.compare.figures import PICTURES
from flower_ist.compare.plan import QUESTIONS, value_text
from flower_ist.console import cell
from flower_ist.page import template
from flower_ist.tables import new_table, percent

NOT_FEDERATED = "not federated"
Value = str | int | float | bool | None
Columns = list[tuple[str, str, Callable[[Any], str]]]
"""Each with its heading, its name in :func:`row`, and how it is shown."""


def row(result: Result) -> dict[str, Value]:
    """Return a strategy's figures as one flat row; bytes are None for what is not federated."""
    cells: dict[str, Value] = {}
    for field in fields(result):
        name, value = field.name, getattr(result, field.name)
        known = result.federated or not ("bytes" in name or name == "accuracy_at")
        if isinstance(value, Spread):
            for end in ("median", "low", "high"):
                column = name if end == "median" else f"{name}_{end}"
                cells[column] = getattr(value, end) if known else None
        elif name == "accuracy_at":
            for share, spread in zip(BUDGET_SHARES, value, strict=True):
                cells[budget_column(share)] = spread.median if known else None
        elif name != "curve":
            cells[name] = value if known else None
    return cells


def budget_column(share: float) -> str:
    """Return the column of the accuracy at a share of the reference's bytes."""
    return f"accuracy_at_{100 * share:g}_percent"


def to_csv(comparison: Comparison) -> str:
    """Return one line a strategy, with a header line; a figure that does not exist is empty."""
    rows = [row(result) for result in comparison.results]
    return tables.to_csv([rows[0], *(cells.values() for cells in rows)])


def to_json(comparison: Comparison, plan: Mapping[str, Any], failed: Mapping[str, str]) -> str:
    """Return the rows, the curves, the plan as JSON values, and why runs failed, by name."""
    content = {
        "reference": comparison.reference,
        "target_accuracy": comparison.target_accuracy,
        "token_upload_bytes": comparison.uploaded,
        "budgets": dict(zip(map(budget_column, BUDGET_SHARES), comparison.budgets, strict=True)),
        "strategies": [row(result) for result in comparison.results],
        "front": [asdict(span) for span in comparison.front],
        "curves": {r.strategy: [asdict(point) for point in r.curve] for r in comparison.results},
        "failed": dict(failed),
        "plan": dict(plan),
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def answer(comparison: Comparison) -> str:
    """Return in one sentence what to take: from which bytes on, and up to which accuracy."""
    parts = [
        f"{span.strategy} from {size(span.bytes_from)} on ({percent(span.accuracy_to)} %)"
        for span in comparison.front
    ]
    if not parts:
        return "Nothing that was compared is a federation."
    listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    return f"For the bytes that you can spend, take {listed}."


def front_sentences(comparison: Comparison) -> list[str]:
    """Return the Pareto front in words, from the cheapest to the most accurate."""
    sentences = []
    for span in comparison.front:
        start, end = size(span.bytes_from), size(span.bytes_to)
        low, high = percent(span.accuracy_from), percent(span.accuracy_to)
        if span.bytes_from == span.bytes_to:
            sentences.append(f"{span.strategy} with {start}: {low} %")
        else:
            sentences.append(f"{span.strategy} from {start} to {end}: {low} to {high} %")
    return sentences


def megabytes(count: float | None) -> str:
    """Return bytes in MB (1e6 bytes) with three significant digits."""
    return "-" if count is None else _digits(count / 1e6)


def size(count: float) -> str:
    """Return bytes in the unit that fits: kB or MB."""
    return f"{_digits(count / 1e6)} MB" if count >= 1e6 else f"{_digits(count / 1e3)} kB"


def _digits(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


@dataclass(frozen=True)
class FigureTable:
    """Some figures of some strategies."""

    title: str
    columns: Columns
    results: Sequence[Result]

    def cells(self, result: Result) -> list[tuple[str, Value, str]]:
        """Return for each column its figure's name, value and text."""
        figures = row(result)
        cells = [(name, figures[name], show(figures[name])) for _, name, show in self.columns]
        if result.federated:
            return cells
        return [(n, v, NOT_FEDERATED if n == "wire_bytes" else text) for n, v, text in cells]


def figure_tables(comparison: Comparison) -> list[FigureTable]:
    """Return accuracies with bytes, accuracies at equal bytes, and what a round costs."""
    accuracies: Columns = [
        ("best\nacc. %", "best_accuracy", percent),
        ("lowest", "best_accuracy_low", percent),
        ("highest", "best_accuracy_high", percent),
        ("last\nacc. %", "final_accuracy", percent),
    ]
    if any(result.ensemble_accuracy.median is not None for result in comparison.results):
        accuracies.append(("ensemble\nacc. %", "ensemble_accuracy", percent))
    totals: Columns = [
        ("MB", "wire_bytes", megabytes),
        ("MB to\ntarget", "bytes_to_target", megabytes),
    ]
    budgets: Columns = [
        (f"{100 * share:g} %:\n{size(budget)}", budget_column(share), percent)
        for share, budget in zip(BUDGET_SHARES, comparison.budgets, strict=True)
    ]
    costs: Columns = [
        ("MB down\na round", "round_bytes_down", megabytes),
        ("MB up\na round", "round_bytes_up", megabytes),
        ("MB of\na client", "client_bytes", megabytes),
        ("coverage\n%", "coverage", percent),
        ("failed", "clients_failed", str),
        ("settings", "settings", str),
    ]
    federated = [result for result in comparison.results if result.federated]
    equal = f"accuracy (%) for shares of the bytes of {comparison.reference}"
    return [
        FigureTable("accuracy and bytes", [*accuracies, *totals], comparison.results),
        FigureTable(equal, budgets, federated),
        FigureTable("what a round and a client cost", costs, comparison.results),
    ]


def to_tables(comparison: Comparison) -> list[Table]:
    """Return two tables for the terminal: the figures, and accuracies at equal bytes."""
    tables = []
    for figures in figure_tables(comparison)[:2]:
        table = new_table(figures.title)
        table.add_column("strategy", no_wrap=True)
        for heading, *_ in figures.columns:
            table.add_column(heading, justify="right", no_wrap=True)
        for result in figures.results:
            table.add_row(cell(result.strategy), *(text for _, _, text in figures.cells(result)))
        tables.append(table)
    return tables


def to_html(
    comparison: Comparison,
    plan: Mapping[str, Any],
    command: str,
    pictures: Mapping[str, bytes],
    failed: Mapping[str, str],
) -> str:
    """Return the report as a page that can be mailed.

    Every figure stands in a ``data`` element with the very text of the CSV file.

    Args:
        comparison: the figures.
        plan: the plan as JSON values.
        command: what repeats the comparison.
        pictures: file name -> PNG.
        failed: run -> why it failed.
    """
    return template("compare/report.html.jinja").render(
        answer=answer(comparison),
        uploaded=None if comparison.uploaded is None else size(comparison.uploaded),
        front=front_sentences(comparison),
        tables=figure_tables(comparison),
        target=percent(comparison.target_accuracy),
        plan=plan,
        settings=shown_settings(plan),
        again=command,
        pictures=[(PICTURES[name][0], b64encode(png).decode()) for name, png in pictures.items()],
        failed=failed,
    )


def shown_settings(plan: Mapping[str, Any]) -> dict[str, str]:
    """Return all that a plan sets, as texts."""
    left_out = ("settings", "sweep", "format", *(key for key in QUESTIONS if not plan.get(key)))
    own = {key: value for key, value in plan.items() if key not in left_out}
    swept = {f"{key} (swept)": values for key, values in plan["sweep"].items()}
    return {key: _shown(value) for key, value in {**own, **plan["settings"], **swept}.items()}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "-"
    return "-" if value is None or value == "" else value_text(value)
