"""Tables and plots from run logs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from flower_ist import tables
from flower_ist.console import cell, printable
from flower_ist.errors import FlowerIstError
from flower_ist.figure import add_legend, new_figure, plain_texts
from flower_ist.files import whole_file
from flower_ist.runs.log import RunLogError, read_run
from flower_ist.tables import new_table, percent
from flower_ist.wire.protocol import STATISTICS_QUERY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MB = 1e6
_MOST_TICKS = 2e4  # span of an axis that has room for three ticks a decade


@dataclass(frozen=True)
class RunSummary:
    """One run as a table row. Bytes are measured on serialized messages of all kinds.

    Attributes:
        name: the name of the run's folder.
        strategy: as set.
        rounds: number of training rounds in the log.
        wire_bytes_down: all rounds, server -> clients.
        wire_bytes_up: all rounds, clients -> server.
        bytes_per_client_round: train messages from round 1 on, and the statistics of clients that
            joined late, both directions, per client asked to train.
        model_saved: 1 - (the same bytes, plus those before round 1) / (bytes of as many messages
            with the whole model as there were from round 1 on); None if there were none.
        input_saved: 1 - kept patches / native images, in bytes; None if unknown.
        token_share: stored tokens / native images, in bytes; None if unknown.
        best_accuracy: on the server's shard; None if no round was evaluated.
        best_after_bytes: wire bytes, both directions, up to the end of the best round.
        final_accuracy: of the last round that was evaluated.
        failed: number of client-rounds without a valid reply.
    """

    name: str
    strategy: str
    rounds: int
    wire_bytes_down: int
    wire_bytes_up: int
    bytes_per_client_round: float
    model_saved: float | None
    input_saved: float | None
    token_share: float | None
    best_accuracy: float | None
    best_after_bytes: int | None
    final_accuracy: float | None
    failed: int


def summarize(run: Path) -> RunSummary:
    """Read the log in a run's folder, or the log file itself, and summarize it.

    Raises:
        RunLogError: there is no log, or it is damaged.
    """
    rounds = read_run(run)
    try:
        return _summarize(_name(run), rounds)
    except (KeyError, TypeError) as err:
        raise RunLogError(f"{run} is not a run log of this release: {err} is missing.") from err


def _summarize(name: str, rounds: list[dict[str, Any]]) -> RunSummary:
    evaluated = [
        (line["accuracy"], total)
        for line, total in zip(rounds, cumulative_bytes(rounds), strict=True)
        if line["accuracy"] is not None
    ]
    best = max(evaluated, key=lambda pair: pair[0], default=(None, None))
    # Requests before the first round cost bytes, but do not replace a model.
    training = [line for line in rounds if line["round"] > 0]
    asked = sum(line["clients_selected"] for line in training)
    whole = sum(2 * line["clients_selected"] * line["full_model_bytes"] for line in training)
    image_bytes = _total(rounds, "image_bytes")
    return RunSummary(
        name=name,
        strategy=rounds[0]["strategy"],
        rounds=rounds[-1]["round"],
        wire_bytes_down=_total(rounds, "wire_bytes_down"),
        wire_bytes_up=_total(rounds, "wire_bytes_up"),
        bytes_per_client_round=_train_bytes(training) / asked if asked else 0.0,
        model_saved=1 - _train_bytes(rounds) / whole if whole else None,
        input_saved=1 - _total(rounds, "masked_image_bytes") / image_bytes if image_bytes else None,
        token_share=_total(rounds, "token_bytes") / image_bytes if image_bytes else None,
        best_accuracy=best[0],
        best_after_bytes=best[1],
        final_accuracy=evaluated[-1][0] if evaluated else None,
        failed=_total(rounds, "clients_failed"),
    )


def _train_bytes(rounds: Sequence[dict[str, Any]]) -> int:
    """Return the bytes of training, including the statistics of clients that joined late."""
    types = [line["message_types"] for line in rounds]
    training = [of.get(kind, {}) for of in types for kind in ("train", STATISTICS_QUERY)]
    return sum(t.get("wire_bytes_down", 0) + t.get("wire_bytes_up", 0) for t in training)


def cumulative_bytes(rounds: Sequence[dict[str, Any]]) -> list[int]:
    """Return the wire bytes in both directions up to the end of each round."""
    return list(accumulate(line["wire_bytes_down"] + line["wire_bytes_up"] for line in rounds))


def to_table(summaries: Sequence[RunSummary]) -> Table:
    """Return the summaries as a table for the terminal."""
    table = new_table()
    headings = (
        "run",
        "rounds",
        "MB\ndown",
        "MB\nup",
        "kB each\na round",
        "model\nsaved %",
        "input\nsaved %",
        "best\nacc. %",
        "last\nacc. %",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
    for run in summaries:
        table.add_row(
            cell(run.name),
            str(run.rounds),
            f"{run.wire_bytes_down / _MB:.2f}",
            f"{run.wire_bytes_up / _MB:.2f}",
            f"{run.bytes_per_client_round / 1e3:.1f}",
            percent(run.model_saved, 1),
            percent(run.input_saved, 1),
            percent(run.best_accuracy),
            percent(run.final_accuracy),
        )
    return table


def compare(run: RunSummary, baseline: RunSummary) -> str:
    """Return one sentence that compares a run's best accuracy and bytes with a baseline's."""
    ours = run.wire_bytes_down + run.wire_bytes_up
    theirs = baseline.wire_bytes_down + baseline.wire_bytes_up
    points = 100 * ((run.best_accuracy or 0.0) - (baseline.best_accuracy or 0.0))
    return (
        f"{run.name} is {points:+.2f} points from {baseline.name}'s best accuracy with "
        f"{100 * ours / max(1, theirs):.1f} % of its bytes."
    )


def to_json(summaries: Sequence[RunSummary]) -> str:
    """Return the summaries as a JSON list."""
    return json.dumps([asdict(run) for run in summaries], indent=2)


def to_csv(summaries: Sequence[RunSummary]) -> str:
    """Return the summaries as CSV with a header line."""
    names = [field.name for field in fields(RunSummary)]
    return tables.to_csv([names, *(asdict(run).values() for run in summaries)])


def plot(folders: Sequence[Path], file: Path) -> None:
    """Draw accuracy against cumulative wire bytes, one line per run, into a PNG or SVG.

    Raises:
        FlowerIstError: matplotlib is not installed, or does not know the file's extension.
        NotWrittenError: the file cannot be written.
    """
    with plain_texts():
        figure = _draw(folders)
        try:
            with whole_file(file) as stream:
                figure.savefig(stream, dpi=150, format=file.suffix[1:] or None)
        except ValueError as err:
            raise FlowerIstError(f"The plot cannot be written to {file}: {err}.") from err


def _draw(folders: Sequence[Path]) -> Figure:
    figure = new_figure()
    axes = figure.add_subplot()
    for folder in folders:
        rounds = read_run(folder)
        # Round 0 has sent no weights yet, and a logarithmic axis cannot show it.
        points = [
            (total / _MB, 100 * line["accuracy"])
            for total, line in zip(cumulative_bytes(rounds), rounds, strict=True)
            if line["round"] > 0 and line["accuracy"] is not None
        ]
        megabytes, accuracy = zip(*points, strict=True) if points else ((), ())
        label = f"{printable(_name(folder))}: best {max(accuracy, default=0):.1f} %"
        axes.plot(megabytes, accuracy, marker="o", markersize=3, linewidth=1.5, label=label)
    plain_log_x(axes)
    axes.set_xlabel("cumulative bytes on the wire, both directions (MB)")
    axes.set_ylabel("accuracy on the server's shard (%)")
    axes.grid(visible=True, alpha=0.25)
    add_legend(axes)  # where it hides least
    return figure


def plain_log_x(axes: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers: 0.5, 1, 2, 5; or 1, 10 over many decades.

    Call it after drawing, when the limits are known.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    if math.isinf(axes.dataLim.minposx):  # nothing was drawn that a logarithm can show
        return
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _MOST_TICKS * low else (1,)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.9f}".rstrip("0").rstrip("."))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name(run: Path) -> str:
    """Return the name of a run's folder, given the folder or the file in it."""
    return (run if run.is_dir() else run.parent).absolute().name


def _total(rounds: Sequence[dict[str, Any]], field: str) -> int:
    return sum(line[field] for line in rounds)
