"""The figures of a comparison as rows: for the terminal, for CSV and for JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from flower_ist.compare.analyze import BUDGET_SHARES, Comparison, Result, Spread

NOT_FEDERATED = "not federated"
Row = dict[str, str | int | float | bool | None]


def row(result: Result) -> Row:
    """Return a strategy's figures as one flat row; bytes are None for what is not federated."""
    federated = result.federated
    cells: Row = {
        "strategy": result.strategy,
        "settings": result.settings,
        "federated": federated,
        "seeds": result.seeds,
        "rounds": result.rounds,
        **_three("best_accuracy", result.best_accuracy),
        **_three("final_accuracy", result.final_accuracy),
        **_three("ensemble_accuracy", result.ensemble_accuracy),
        **_three("wire_bytes", result.wire_bytes, federated),
        **_three("bytes_to_target", result.bytes_to_target, federated),
        "round_bytes_down": result.round_bytes_down if federated else None,
        "round_bytes_up": result.round_bytes_up if federated else None,
        **_three("client_bytes", result.client_bytes, federated),
    }
    for share, spread in zip(BUDGET_SHARES, result.accuracy_at, strict=True):
        cells[budget_column(share)] = spread.median if federated else None
    return {**cells, "coverage": result.coverage, "clients_failed": result.clients_failed}


def budget_column(share: float) -> str:
    """Return the column of the accuracy at a share of the reference's bytes."""
    return f"accuracy_at_{100 * share:g}_percent"


def to_csv(comparison: Comparison) -> str:
    """Return one line a strategy, with a header line; an empty field is a figure that is none."""
    rows = [row(result) for result in comparison.results]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(comparison: Comparison, plan: Mapping[str, Any], failed: Mapping[str, str]) -> str:
    """Return the rows and all that has no place in a CSV file.

    Args:
        comparison: the figures.
        plan: the plan as JSON values.
        failed: run -> why it failed.
    """
    content = {
        "reference": comparison.reference,
        "target_accuracy": comparison.target_accuracy,
        "budgets": dict(zip(map(budget_column, BUDGET_SHARES), comparison.budgets, strict=True)),
        "strategies": [row(result) for result in comparison.results],
        "front": [asdict(span) for span in comparison.front],
        "curves": {
            result.strategy: [asdict(point) for point in result.curve]
            for result in comparison.results
        },
        "failed": dict(failed),
        "plan": dict(plan),
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def to_tables(comparison: Comparison) -> list[Table]:
    """Return two tables for the terminal: the figures, and accuracies at equal bytes."""
    headings = ["best\nacc. %", "lowest", "highest", "last\nacc. %", "MB", "MB to\ntarget"]
    ensembles = any(result.ensemble_accuracy.median is not None for result in comparison.results)
    if ensembles:
        headings.insert(4, "ensemble\nacc. %")
    figures = _table(*headings)
    at_budgets = _table(
        *(
            f"{100 * share:g} %:\n{size(budget)}"
            for share, budget in zip(BUDGET_SHARES, comparison.budgets, strict=True)
        )
    )
    at_budgets.title = f"accuracy (%) for shares of the bytes of {comparison.reference}"
    for result in comparison.results:
        best = result.best_accuracy
        cells = [percent(figure) for figure in (best.median, best.low, best.high)]
        cells.append(percent(result.final_accuracy.median))
        if ensembles:
            cells.append(percent(result.ensemble_accuracy.median))
        if result.federated:
            cells.append(megabytes(result.wire_bytes.median))
            cells.append(megabytes(result.bytes_to_target.median))
            accuracies = [percent(spread.median) for spread in result.accuracy_at]
            at_budgets.add_row(result.strategy, *accuracies)
        else:
            cells.append(NOT_FEDERATED)
        figures.add_row(result.strategy, *cells)
    return [figures, at_budgets]


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


def percent(share: float | None) -> str:
    """Return an accuracy or a share in percent."""
    return "-" if share is None else f"{100 * share:.2f}"


def megabytes(count: float | None) -> str:
    """Return bytes in MB (1e6 bytes) with three digits that count."""
    return "-" if count is None else _digits(count / 1e6)


def size(count: float) -> str:
    """Return bytes in the unit that fits: kB or MB."""
    return f"{_digits(count / 1e6)} MB" if count >= 1e6 else f"{_digits(count / 1e3)} kB"


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    table.add_column("strategy", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _digits(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _three(name: str, spread: Spread, known: bool = True) -> Row:
    values = (spread.median, spread.low, spread.high) if known else (None, None, None)
    return {name: values[0], f"{name}_low": values[1], f"{name}_high": values[2]}
