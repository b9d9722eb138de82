"""A picture of a split: which client holds how much of which class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.splits.report import SplitReport
from flower_ist.console import printable, shortened
from flower_ist.figure import new_figure, plain_texts, to_png
from flower_ist.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_NAME = 22
_MOST_NUMBERS, _MOST_NAMES = 20, 50
_DARK = 0.55
"""From this share of the darkest color on, numbers are white."""


def plot_split(report: SplitReport, file: Path) -> Path:
    """Draw a split into a PNG: a heat map of clients and classes, and a bar for each client.

    A cell's color is the class's share of that client's images, white for none, so that class skew
    shows regardless of the clients' sizes; the bars show those. Up to 20 x 20 cells have their
    counts written in.

    Raises:
        NotWrittenError: the file cannot be written.
    """
    with plain_texts():
        write_file(file, to_png(_draw(report)))
    return file


def _draw(report: SplitReport) -> Figure:
    clients, classes = report.counts.shape
    figure = new_figure(
        width=min(14.0, 4.0 + 0.42 * classes), height=min(13.0, 2.4 + 0.3 * max(clients, 3))
    )
    ratios = (min(10.0, max(3.0, 0.28 * classes)), 1.2)
    cells, bars = figure.subplots(1, 2, sharey=True, width_ratios=ratios)
    # The scale ends at three even shares or above: an even split must not look skewed.
    darkest = min(1.0, max(report.shares.max(), 3 / classes))
    shares = np.ma.masked_equal(report.shares, 0)
    drawn = cells.imshow(shares, cmap="Blues", vmin=0, vmax=darkest, aspect="auto")
    _separate(cells, clients, classes)
    if clients <= _MOST_NUMBERS and classes <= _MOST_NUMBERS:
        _write_counts(cells, report, darkest)
    small = 8 if max(clients, classes) <= _MOST_NUMBERS else 6.5
    # A name for each class or client up to 50, for every nth of more.
    columns, rows = (range(0, n, -(-n // _MOST_NAMES)) for n in (classes, clients))
    names = [shortened(report.class_names[column], _LONGEST_NAME) for column in columns]
    cells.set_xticks(
        columns, names, rotation=60, ha="right", rotation_mode="anchor", fontsize=small
    )
    cells.set_yticks(rows, [printable(report.clients[row]) for row in rows], fontsize=small)
    cells.set_xlabel("class")
    bars.barh(range(clients), report.images, height=0.8, color="#4878a8")
    bars.set_xlim(0, 1.05 * report.images.max())
    bars.tick_params(axis="y", which="both", left=False, labelleft=False)
    bars.tick_params(axis="x", labelsize=8)
    bars.locator_params(axis="x", nbins=4)
    bars.set_xlabel("images")
    for side in ("top", "right"):
        bars.spines[side].set_visible(False)
    scale = figure.colorbar(drawn, ax=bars, format="{x:.0%}", fraction=0.2, aspect=30)
    scale.set_label("share of the client's images", fontsize=8)
    scale.ax.tick_params(labelsize=8)
    total, mean = report.images.sum(), report.distance @ report.images / report.images.sum()
    figure.suptitle(
        f"{total} images, {clients} clients, {classes} classes; "
        f"mean distance from the overall mix {mean:.2f}",
        fontsize=10,
    )
    return figure


def _separate(cells: Any, clients: int, classes: int) -> None:
    """Draw white lines between the cells, and a light frame."""
    # Of more cells than that, lines would be most of the picture.
    if max(clients, classes) <= 2 * _MOST_NAMES:
        cells.set_xticks([k - 0.5 for k in range(1, classes)], minor=True)
        cells.set_yticks([k - 0.5 for k in range(1, clients)], minor=True)
        cells.grid(which="minor", color="white", linewidth=0.8)
    cells.tick_params(which="both", length=0)
    for spine in cells.spines.values():
        spine.set_color("#b0b0b0")


def _write_counts(cells: Any, report: SplitReport, darkest: float) -> None:
    for client, label in np.argwhere(report.counts):
        dark = report.shares[client, label] > _DARK * darkest
        cells.text(
            label,
            client,
            str(report.counts[client, label]),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else "#303030",
        )
