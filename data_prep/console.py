"""What commands show on a console: a progress bar that counts images, and sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int], object]
"""Is called with the number of images that were finished since the last call."""


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} images/s")


@contextmanager
def image_progress(
    console: Console, work: str, images: int, finished: int = 0
) -> Iterator[Callable[..., None]]:
    """Show a bar with images per second and the time left.

    Yields a function ``advance(images, work="")`` that counts images and may rename the work.

    Args:
        console: Where.
        work: What is done, in words.
        images: Images in all.
        finished: Images that an earlier run finished.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(work, total=images, completed=finished)

        def advance(count: int, work: str | None = None) -> None:
            progress.update(task, advance=count, description=work)

        yield advance


def print_sentence(console: Console, sentence: str) -> None:
    """Print a sentence on one line, as it is; nothing where it is empty."""
    if sentence:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def print_skipped(console: Console, skipped: Iterable[str]) -> None:
    """List the unreadable images, each once: two sets cut from one source both carry its list."""
    sentences = dict.fromkeys(skipped)
    if sentences:
        print_sentence(console, f"Skipped {len(sentences)} unreadable image files:")
    for sentence in sentences:
        print_sentence(console, sentence)
