"""A progress bar that counts images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.text import Text

from flower_ist.console import cell, text_column

Advance = Callable[[int], object]
"""Is called with the number of images that were finished since the last call."""


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return cell("" if speed is None else f"{speed:.1f} images/s")


@contextmanager
def image_progress(
    console: Console, work: str, images: int | None, finished: int = 0
) -> Iterator[Callable[..., None]]:
    """Show a bar with images per second and the time left.

    Yields a function ``advance(images, work="")`` that counts images and may rename the work.

    Args:
        console: Where.
        work: What is done, in words.
        images: Images in all; None if their number is unknown.
        finished: Images that an earlier run finished.
    """
    columns = (
        text_column("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
    )
    # Lines on standard output are not the bar's: they may go to another program.
    with Progress(*columns, console=console, redirect_stdout=not console.stderr) as progress:
        task = progress.add_task(work, total=images, completed=finished)

        def advance(count: int, work: str | None = None) -> None:
            progress.update(task, advance=count, description=work)

        yield advance
