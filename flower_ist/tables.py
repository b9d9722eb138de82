"""Tables: for the terminal, all of one style, and as CSV; shares in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.table import Table


def new_table(title: Any = None, *, padding: Any = (0, 1, 0, 0), **options: Any) -> Table:
    """Return an empty table for the terminal.

    Args:
        title: above it, on the left.
        padding: of a cell, in characters.
        options: of rich's ``Table``.
    """
    style: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "title_justify": "left"}
    return Table(title=title, padding=padding, **style, **options)


def to_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows of values as CSV, a line each; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def percent(share: float | None, digits: int = 2) -> str:
    """Return an accuracy or another share in percent, or a dash for one that is not known."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return "-" if share is None else f"{round(100 * share, digits) + 0.0:.{digits}f}"
