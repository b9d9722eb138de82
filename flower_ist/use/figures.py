"""The pictures of an evaluation, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flower_ist.console import shortened
from flower_ist.figure import new_figure, plain_texts, to_png
from flower_ist.use.measures import BINS, Measures, Share

_BLUE, _ORANGE = "#0072b2", "#d55e00"
_MOST_NAMED = 40  # classes whose names fit beside the matrix
_MOST_WRITTEN = 15  # classes whose counts fit into its cells


@plain_texts()
def confusion(measures: Measures) -> bytes:
    """Draw the confusion matrix; the shade is the share of a label's examples."""
    names, counts = measures.class_names, measures.confusion
    side = float(min(14, max(4.5, 0.32 * len(names) + 2)))
    figure = new_figure(side, side)
    axes = figure.add_subplot()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= _MOST_NAMED:
        shown = [shortened(name, 24) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=90, fontsize="small")
        axes.set_yticks(range(len(names)), shown, fontsize="small")
    if len(names) <= _MOST_WRITTEN:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, str(count), color=color, ha="center", va="center")
    axes.set_xlabel("answer")
    axes.set_ylabel("label")
    return to_png(figure)


def reliability(measures: Measures) -> bytes:
    """Draw accuracy against probability, and how many answers have which probability."""
    figure = new_figure(6, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = [each for each in measures.bins if each.right.examples]
    x = [each.mean_probability for each in bins]
    y = [each.right.value or 0.0 for each in bins]
    ends = [each.right.interval for each in bins]
    # A share lies within its interval but for rounding.
    low = [max(0.0, share - end[0]) for share, end in zip(y, ends, strict=True)]
    high = [max(0.0, end[1] - share) for share, end in zip(y, ends, strict=True)]
    above.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle="--", label="calibrated")
    label = "answers, with 95 % intervals"
    above.errorbar(x, y, yerr=[low, high], fmt="o-", color=_BLUE, capsize=2, label=label)
    above.set_ylabel("share that is right")
    above.legend(loc="upper left", fontsize="small")
    edges = np.linspace(0, 1, BINS + 1)
    counts = [each.right.examples for each in measures.bins]
    below.stairs(counts, edges, fill=True, color=_ORANGE, alpha=0.6)
    below.set_ylabel("answers")
    below.set_xlabel("probability of the answer")
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.25)
    return to_png(figure)


def mask_ratios(shares: Mapping[float, Share]) -> bytes:
    """Draw accuracy against the share of patches that is dropped; the first is the run's."""
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    ratios = sorted(shares)
    y = [100 * (shares[ratio].value or 0.0) for ratio in ratios]
    ends = [shares[ratio].interval for ratio in ratios]
    axes.plot(ratios, y, "o-", color=_BLUE)
    low, high = zip(*((100 * low, 100 * high) for low, high in ends), strict=True)
    axes.fill_between(ratios, low, high, color=_BLUE, alpha=0.2, linewidth=0)
    axes.axvline(
        next(iter(shares)), color="gray", linestyle="--", linewidth=1, label="of the run's tokens"
    )
    axes.set_xlabel("share of patches dropped")
    axes.set_ylabel("accuracy (%), with its 95 % interval")
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize="small")
    return to_png(figure)
