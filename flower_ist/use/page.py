"""What an evaluation found, as a folder: one page, its pictures, the figures as CSV and JSON."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from flower_ist.console import cell
from flower_ist.files import new_folder, write_file
from flower_ist.page import template
from flower_ist.tables import new_table, percent, to_csv
from flower_ist.use import figures
from flower_ist.use.evaluate import Evaluation
from flower_ist.use.measures import Measures, Share

PAGE = "evaluation.html"


@dataclass(frozen=True)
class PageTable:
    """A table of the page, its cells as text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def answer(measures: Measures) -> str:
    """Return the accuracy as a sentence."""
    low, high = (100 * end for end in measures.accuracy.interval)
    return (
        f"{percent(measures.accuracy.value)} % of {measures.accuracy.examples} examples are right "
        f"(95 % interval {low:.2f} to {high:.2f} %)."
    )


def class_table(measures: Measures) -> PageTable:
    """Return precision and recall of each class."""
    rows = [
        (name, str(recall.examples), percent(measures.precision[name].value), percent(recall.value))
        for name, recall in measures.recall.items()
    ]
    return PageTable("Classes", ("class", "examples", "precision %", "recall %"), rows)


def tables_of(evaluation: Evaluation) -> list[PageTable]:
    """Return the classes, the clients if there are several, and the mask ratios, too."""
    measures, ratios = evaluation.measures, evaluation.ratios
    tables = [class_table(measures)]
    if len(measures.clients) > 1:
        tables.append(_shares("Clients", "client", measures.clients))
    if len(ratios) > 1:
        named = {f"{ratio:g}": share for ratio, share in sorted(ratios.items())}
        tables.append(_shares("Mask ratios", "share dropped", named))
    return tables


def to_rich(table: PageTable) -> Table:
    """Return a table for the terminal; names are shown as they are."""
    shown = new_table(table.title)
    for number, heading in enumerate(table.columns):
        shown.add_column(heading, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*map(cell, row))
    return shown


def write_report(evaluation: Evaluation, out: Path, model: str, data: str) -> Path:
    """Write a new folder with the page, its pictures, and CSV and JSON of its figures.

    Args:
        evaluation: what was found.
        out: the folder.
        model: what to call the model.
        data: what it was evaluated on, in words.

    Returns:
        The page.

    Raises:
        NotWrittenError: the folder exists already or cannot be written.
        FlowerIstError: matplotlib is not installed.
    """
    measures, ratios = evaluation.measures, evaluation.ratios
    pictures = {
        "confusion.png": figures.confusion(measures),
        "reliability.png": figures.reliability(measures),
    }
    if len(ratios) > 1:
        pictures["mask-ratios.png"] = figures.mask_ratios(ratios)
    classes = class_table(measures)
    files: dict[str, bytes | str] = {
        **pictures,
        PAGE: _page(evaluation, pictures, model, data),
        "evaluation.json": json.dumps(_figures(evaluation, model, data), indent=2) + "\n",
        "classes.csv": to_csv([classes.columns, *classes.rows]),
        "confusion.csv": _confusion_csv(measures),
    }
    with new_folder(out) as folder:
        for name, content in files.items():
            write_file(folder / name, content)
    return out / PAGE


_TITLES = {
    "confusion.png": (
        "Which class is taken for which",
        "A row is a label, a column an answer; the shade is the share of the label's examples.",
    ),
    "reliability.png": (
        "Can the probabilities be believed?",
        "Below the diagonal the model is too sure of itself, above it is not sure enough.",
    ),
    "mask-ratios.png": (
        "Accuracy against the share of patches dropped at prediction time",
        "The model was trained on tokens of one ratio; a device may drop more, or fewer.",
    ),
}


def _page(evaluation: Evaluation, pictures: Mapping[str, bytes], model: str, data: str) -> str:
    measures = evaluation.measures
    return template("use/evaluation.html.jinja").render(
        model=model,
        data=data,
        answer=answer(measures),
        loss=measures.loss,
        calibration_error=measures.calibration_error,
        pictures=[
            (_TITLES[name][0], b64encode(png).decode(), _TITLES[name][1])
            for name, png in pictures.items()
        ],
        tables=tables_of(evaluation),
    )


def _shares(title: str, what: str, shares: Mapping[str, Share]) -> PageTable:
    rows = []
    for name, share in shares.items():
        low, high = (f"{100 * end:.2f}" for end in share.interval)
        rows.append((name, str(share.examples), percent(share.value), low, high))
    return PageTable(title, (what, "examples", "accuracy %", "from", "to"), rows)


def _figures(evaluation: Evaluation, model: str, data: str) -> dict[str, Any]:
    measures = evaluation.measures
    shares = {
        "classes_precision": measures.precision,
        "classes_recall": measures.recall,
        "clients": measures.clients,
        "mask_ratios": {f"{ratio:g}": share for ratio, share in evaluation.ratios.items()},
    }
    return {
        "model": model,
        "data": data,
        "examples": measures.accuracy.examples,
        "accuracy": measures.accuracy.value,
        "accuracy_interval": measures.accuracy.interval,
        "loss": measures.loss,
        "calibration_error": measures.calibration_error,
        **{
            name: {key: {"value": s.value, "examples": s.examples} for key, s in found.items()}
            for name, found in shares.items()
        },
    }


def _confusion_csv(measures: Measures) -> str:
    counts = zip(measures.class_names, measures.confusion.tolist(), strict=True)
    return to_csv([["label", *measures.class_names], *([name, *row] for name, row in counts)])
