"""``flower-ist watch``: the progress of runs, live in the terminal, read from their folders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flower_ist.console import cell, print_text, printable
from flower_ist.runs.watch.follow import RunFollower, State
from flower_ist.runs.watch.progress import Progress, progress
from flower_ist.tables import new_table, percent

_MB = 1e6
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = ".:-=+*%#"
_SPARKS = 32
_MOST_CLIENTS = 16
_MOST_FAILURES = 6
_STYLES = {State.FINISHED: "green", State.FAILED: "red", State.WAITING: "yellow"}


def watch(
    folders: Sequence[Path],
    console: Console,
    *,
    once: bool = False,
    every: float = 1.0,
) -> bool:
    """Show runs until all of them have ended.

    In a terminal, one view is updated; elsewhere each round is one line of plain text, and the view
    follows at the end.

    Args:
        folders: of the runs. One is shown in full, several with one line each.
        console: where they are shown.
        once: show the current state of the runs and return.
        every: seconds between two updates.

    Returns:
        Whether none of the runs has failed.

    Raises:
        RunLogError: a folder is missing, or a log is damaged.
    """
    runs = [RunFollower(folder) for folder in folders]
    shown: dict[Path, int] = {}

    def look() -> list[Progress]:
        for run in runs:
            run.poll()
        return [progress(run, time.time()) for run in runs]

    states = look()
    if once or not console.is_terminal:
        while not once:
            for run, state in zip(runs, states, strict=True):
                if state.round is not None and shown.get(run.folder) != len(run.rounds):
                    shown[run.folder] = len(run.rounds)
                    print_text(console, as_line(state))
            if _ended(states):
                break
            time.sleep(every)
            states = look()
        console.print(view(states, console))
    else:
        with Live(view(states, console), console=console, auto_refresh=False) as live:
            while not _ended(states):
                time.sleep(every)
                states = look()
                live.update(view(states, console), refresh=True)
    return all(state.state is not State.FAILED for state in states)


def view(states: Sequence[Progress], console: Console) -> RenderableType:
    """Return one run in full, or several as a table."""
    blocks = _ASCII_BLOCKS if console.options.ascii_only else _BLOCKS
    return _full(states[0], blocks) if len(states) == 1 else _table(states, blocks)


def as_line(run: Progress) -> str:
    """Return a run as one line of plain text."""
    parts = [
        f"{printable(run.name)}: round {_round(run)}",
        f"accuracy {_percent(_last(run.accuracies))}",
        f"{run.bytes_down / _MB:.2f} MB down",
        f"{run.bytes_up / _MB:.2f} MB up",
    ]
    failed = [client for number, client, _ in run.failures if number == run.round]
    if failed:
        parts.append("nothing from " + " ".join(map(printable, failed)))
    if run.eta is not None:
        parts.append(f"{_duration(run.eta)} left")
    return ", ".join(parts)


def sparkline(values: Sequence[float | None], blocks: str = _BLOCKS, width: int = _SPARKS) -> str:
    """Draw the last ``width`` values as blocks between their lowest and highest; None as a gap."""
    recent = values[-width:]
    known = [value for value in recent if value is not None]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    top = len(blocks) - 1
    return "".join(
        " " if value is None else blocks[round(top * (value - low) / span) if span else 0]
        for value in recent
    )


def _full(run: Progress, blocks: str) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    best = "" if run.best is None else f"best {_percent(run.best[0])} in round {run.best[1]}"
    facts.add_row("accuracy", f"{_percent(_last(run.accuracies))}  {best}")
    facts.add_row("", sparkline(run.accuracies, blocks))
    loss = _last(run.losses)
    facts.add_row("loss", "-" if loss is None else f"{loss:.4f}")
    facts.add_row("", sparkline(run.losses, blocks))
    facts.add_row("down", _against(run.bytes_down, run.full_model_bytes))
    facts.add_row("up", _against(run.bytes_up, run.full_model_bytes))
    if run.coverage is not None:
        facts.add_row("coverage", f"{_percent(run.coverage)} of the weights in the last round")
    if run.seconds:
        parts = "  ".join(f"{part} {seconds:.2f}" for part, seconds in run.seconds.items())
        facts.add_row("seconds", f"{parts}  in the last round")
    return Group(_head(run), facts, *_client_table(run), *_failures(run))


def _head(run: Progress) -> RenderableType:
    name, strategy = printable(run.name), printable(run.strategy)
    title = Text.assemble((name, "bold"), f"  {strategy}  ", _state(run))
    line = Table.grid(padding=(0, 2))
    bar = ProgressBar(run.total_rounds or 1, run.round or 0, width=_SPARKS)
    left = "" if run.eta is None else f"{_duration(run.eta)} left"
    line.add_row(cell(f"round {_round(run)}"), bar, cell(left))
    return Group(title, line)


def _client_table(run: Progress) -> list[RenderableType]:
    if not run.clients:
        return []
    table = new_table()
    table.add_column("client", overflow="fold")
    for heading in ("MB down", "MB up", "rounds failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    # Users look for clients that failed, so these are shown before the others.
    names = sorted(run.clients, key=lambda name: (-run.clients[name][2], name))[:_MOST_CLIENTS]
    for name in sorted(names):
        down, up, failed = run.clients[name]
        style = "red" if failed else ""
        cells = (f"{down / _MB:.3f}", f"{up / _MB:.3f}", str(failed))
        table.add_row(cell(name), *cells, style=style)
    rest = len(run.clients) - len(names)
    return [table, cell(f"and {rest} more clients", style="dim")] if rest else [table]


def _failures(run: Progress) -> list[RenderableType]:
    if not run.failures:
        return []
    lines: list[RenderableType] = []
    earlier = len(run.failures) - _MOST_FAILURES
    if earlier > 0:
        lines.append(cell(f"{earlier} earlier failures", style="dim"))
    for number, client, reason in run.failures[-_MOST_FAILURES:]:
        lines.append(cell(f"round {number}  {client}: {reason}", style="red"))
    return lines


def _table(states: Sequence[Progress], blocks: str) -> Table:
    table = new_table()
    table.add_column("run", overflow="fold")
    for heading in ("round", "acc. %", "best %", "MB down", "MB up", "failed", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("accuracy", no_wrap=True)
    table.add_column("", overflow="fold")
    for run in states:
        table.add_row(
            cell(run.name),
            _round(run).replace(" of ", "/"),
            percent(_last(run.accuracies)),
            percent(run.best[0] if run.best else None),
            f"{run.bytes_down / _MB:.2f}",
            f"{run.bytes_up / _MB:.2f}",
            str(len(run.failures)),
            "" if run.eta is None else _duration(run.eta),
            sparkline(run.accuracies, blocks, 12),
            _state(run),
        )
    return table


def _state(run: Progress) -> Text:
    text = run.state.value
    if run.reason:
        text += f": {run.reason}"
    elif run.state is State.RUNNING and run.idle >= 1:
        text += f", last line {_duration(run.idle)} ago"
    return cell(text, style=_STYLES.get(run.state, ""))


def _ended(states: Sequence[Progress]) -> bool:
    return all(state.state in (State.FINISHED, State.FAILED) for state in states)


def _round(run: Progress) -> str:
    done = "-" if run.round is None else str(run.round)
    return done if run.total_rounds is None else f"{done} of {run.total_rounds}"


def _against(sent: int, whole: int) -> str:
    text = f"{sent / _MB:.2f} MB"
    if not whole:
        return text
    return f"{text}, {_percent(sent / whole)} of {whole / _MB:.2f} MB with the whole model"


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{percent(share)} %"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
