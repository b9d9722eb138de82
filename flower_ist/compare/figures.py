"""The pictures of a comparison, as PNG bytes. matplotlib is loaded only when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from flower_ist.compare.analyze import Comparison, front_points
from flower_ist.compare.budget import Found, Question, front
from flower_ist.figure import new_figure, plain_texts, to_png
from flower_ist.runs.report import plain_log_x

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MB = 1e6
_COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"),
    *("#56b4e9", "#7f3c8d", "#80520f", "#5c5c5c", "#a5aa99"),
)
# What lies further below the best is not drawn: there it is of no use to anybody.
_DRAWN_POINTS = 10


def draw_all(comparison: Comparison) -> dict[str, bytes]:
    """Return file name -> PNG of each picture.

    Raises:
        FlowerIstError: matplotlib is not installed.
    """
    with plain_texts():
        return {
            name: _png(lambda axes, draw=draw: draw(axes, comparison))  # type: ignore[misc]
            for name, (_, draw) in PICTURES.items()
        }


def accuracy_by_bytes(axes: Axes, comparison: Comparison) -> None:
    """Draw accuracy against cumulative wire bytes: median over the seeds, and the range."""
    for result, color in zip(comparison.results, colors(comparison), strict=True):
        if not result.federated:
            best = 100 * (result.best_accuracy.median or 0.0)
            label = f"{result.strategy} (not federated)"
            axes.axhline(best, color=color, linestyle="--", linewidth=1, label=label)
            continue
        megabytes = [point.wire_bytes / _MB for point in result.curve]
        middle, low, high = (
            [100 * (getattr(point.accuracy, end) or 0.0) for point in result.curve]
            for end in ("median", "low", "high")
        )
        axes.plot(megabytes, middle, color=color, marker="o", markersize=3, label=result.strategy)
        axes.fill_between(megabytes, low, high, color=color, alpha=0.2, linewidth=0)
    if front := front_points(comparison.results):
        most = max(r.curve[-1].wire_bytes for r in comparison.results if r.federated)
        front.append((most, *front[-1][1:]))
        x, y = [point[0] / _MB for point in front], [100 * point[1] for point in front]
        label = "best for the bytes"
        axes.step(x, y, "k", where="post", linewidth=6, alpha=0.15, zorder=0, label=label)
    if comparison.uploaded is not None:
        _mark_upload(axes, comparison.uploaded)
    plain_log_x(axes)
    axes.set_xlabel("cumulative bytes on the wire, both directions (MB)")
    axes.set_ylabel("test accuracy (%)")


def bytes_per_round(axes: Axes, comparison: Comparison) -> None:
    """Draw the mean bytes of a round that trains, by direction."""
    federated = [result for result in comparison.results if result.federated]
    names = [result.strategy for result in federated]
    down = [result.round_bytes_down / _MB for result in federated]
    up = [result.round_bytes_up / _MB for result in federated]
    axes.plot(down, names, ">", color=_COLORS[0], label="server to clients")
    axes.plot(up, names, "<", color=_COLORS[1], label="clients to server")
    axes.invert_yaxis()
    plain_log_x(axes)
    axes.set_xlabel("bytes on the wire in a round of training (MB)")


def bytes_per_client(axes: Axes, comparison: Comparison) -> None:
    """Draw the bytes of a whole run by client: the median one, and from lowest to highest."""
    federated = [result for result in comparison.results if result.federated]
    names = [result.strategy for result in federated]
    for name, result in zip(names, federated, strict=True):
        ends = [(result.client_bytes.low or 0.0) / _MB, (result.client_bytes.high or 0.0) / _MB]
        axes.plot(ends, [name, name], color=_COLORS[8], linewidth=3, alpha=0.5)
    middle = [(result.client_bytes.median or 0.0) / _MB for result in federated]
    axes.plot(middle, names, "o", color=_COLORS[0], label="median client; bar: all clients")
    axes.invert_yaxis()
    plain_log_x(axes)
    axes.set_xlabel("bytes on the wire of one client, whole run, both directions (MB)")


def coverage_by_round(axes: Axes, comparison: Comparison) -> None:
    """Draw the share of the model's weights that some client trained in a round."""
    for result, color in zip(comparison.results, colors(comparison), strict=True):
        rounds = [point.server_round for point in result.curve]
        covered = [100 * point.coverage for point in result.curve]
        axes.plot(rounds, covered, color=color, marker="o", markersize=3, label=result.strategy)
    axes.set_ylim(-3, 105)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("round")
    axes.set_ylabel("weights that some client trained (%)")


def colors(comparison: Comparison) -> list[str]:
    """Return a color for each strategy, the same in all pictures."""
    return [_COLORS[number % len(_COLORS)] for number in range(len(comparison.results))]


PICTURES: Mapping[str, tuple[str, Callable[[Axes, Comparison], None]]] = {
    "accuracy-by-bytes.png": ("Accuracy against bytes on the wire", accuracy_by_bytes),
    "bytes-per-round.png": ("Bytes of a round, by direction", bytes_per_round),
    "bytes-per-client.png": ("Bytes of a client", bytes_per_client),
    "coverage.png": ("Share of the weights trained in each round", coverage_by_round),
}
"""File name -> (title, how it is drawn)."""


def draw_answer(
    question: Question,
    answer: Found,
    strategies: Mapping[str, Sequence[Sequence[Found]]],
    uploaded: int,
) -> bytes:
    """Return a PNG of validation accuracy against bytes: all that a search tried, and its front.

    Args:
        question: what was asked.
        answer: what is marked.
        strategies: name -> its candidates, each after each of its rounds; the answer among them.
        uploaded: bytes of uploading all tokens, where a line is drawn.

    Raises:
        FlowerIstError: matplotlib is not installed.
    """

    def draw(axes: Axes) -> None:
        for number, (name, candidates) in enumerate(strategies.items()):
            color, label = _COLORS[number % len(_COLORS)], name
            for stops in filter(None, candidates):
                x, y = _coordinates(stops)
                axes.plot(x, y, color=color, marker=".", linewidth=0.8, alpha=0.6, label=label)
                label = "_"  # one of a strategy is enough in the legend
        tried = [found for group in strategies.values() for stops in group for found in stops]
        x, y = _coordinates(front(tried))
        x, y = [*x, max(found.wire_bytes for found in tried) / _MB], [*y, y[-1]]
        axes.step(x, y, "k", where="post", linewidth=6, alpha=0.15, zorder=0, label="front")
        x, y = _coordinates([answer])
        axes.plot(x, y, "k*", markersize=14, markerfacecolor="none", label="the answer")
        _mark_upload(axes, uploaded)
        if math.isfinite(question.budget):
            axes.axvline(question.budget / _MB, color="k", linestyle="--", label="budget")
        if question.target:
            axes.axhline(100 * question.target, color="k", linestyle="--", label="target")
        accuracies = [100 * found.validation for found in tried]
        axes.set_ylim(bottom=max(min(accuracies), max(accuracies) - _DRAWN_POINTS) - 1)
        plain_log_x(axes)
        whose = "of the client that has most" if question.per_client else "of all clients"
        axes.set_xlabel(f"bytes on the wire {whose}, both directions (MB)")
        axes.set_ylabel("validation accuracy (%)")

    with plain_texts():
        return _png(draw)


def _mark_upload(axes: Axes, uploaded: int) -> None:
    """Draw what uploading all tokens once would take: it needs no round, and hides nothing."""
    axes.axvline(uploaded / _MB, color="k", linestyle=":", label="all tokens in int8")


def _coordinates(stops: Sequence[Found]) -> tuple[list[float], list[float]]:
    return [f.wire_bytes / _MB for f in stops], [100 * f.validation for f in stops]


def _png(draw: Callable[[Axes], None]) -> bytes:
    figure = new_figure()
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(visible=True, alpha=0.25)
    if len(axes.get_legend_handles_labels()[0]) > 2:
        figure.legend(fontsize="small", loc="outside right upper")
    else:
        figure.legend(fontsize="small", loc="outside upper center", ncols=2)
    return to_png(figure)
