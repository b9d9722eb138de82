"""Accuracy against bytes, as the runs of benchmarks/equal_bytes.py have it: means, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

# (MB so far, accuracy in percent) after each round.
Curve = list[tuple[float, float]]


def mean_curve(runs: Sequence[Mapping[str, Any]]) -> Curve:
    """Return the curve that is the mean of several runs, from round 0 on."""
    megabytes, accuracies = (
        [mean(values) for values in zip(*(run[key] for run in runs), strict=True)]
        for key in ("megabytes", "accuracy")
    )
    return list(zip(megabytes, accuracies, strict=True))


def draw(panels: Mapping[str, Mapping[str, Curve]], columns: int, file: Path) -> None:
    """Draw a panel for each name, with its curves by their labels."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.0 * columns, 3.8 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        for label, curve in curves.items():
            axes.plot(*zip(*curve, strict=True), marker="o", markersize=3, label=label)
        axes.set(title=name, xscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(alpha=0.3)
    figure.supxlabel("MB on the wire, all clients, both directions")
    figure.supylabel("test accuracy (%)")
    figure.axes[0].legend(fontsize="small")
    figure.savefig(file, dpi=130)
