"""What ``prep`` shows: its progress, the shards it made with their bytes, and what it left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
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
from rich.table import Table
from rich.text import Text

from data_prep.patches.meta import MaskedMeta
from data_prep.shards.chunks import PlannedShard


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} images/s")


@contextmanager
def image_progress(
    console: Console | None, work: str, images: int, finished: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show a bar with images a second and the time left; yield a function that counts images.

    Args:
        console: Where; None for nowhere.
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
    with Progress(*columns, console=console, disable=console is None) as progress:
        task = progress.add_task(work, total=images, completed=finished)
        yield lambda count: progress.advance(task, count)


def shard_table(shards: Sequence[PlannedShard]) -> Table:
    """Return a table of examples and bytes for each shard and in all.

    ``saved %`` compares the tokens with the native images; below zero the tokens are larger.
    """
    rows = [(shard.name, *_bytes(shard)) for shard in shards]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_footer=True)
    totals = [sum(row[column] for row in rows) for column in range(1, 5)]  # type: ignore[misc]
    titles = ("examples", "native bytes", "kept-patch bytes", "token bytes")
    table.add_column("shard", "all", no_wrap=True)
    for title, total in zip(titles, totals, strict=True):
        table.add_column(title, str(total), justify="right")
    table.add_column("saved %", _saved(totals[1], totals[3]), justify="right")
    for name, *counts in rows:
        table.add_row(Text(name), *map(str, counts), _saved(counts[1], counts[3]))
    return table


def masked_summary(folder: Path, metas: Sequence[MaskedMeta]) -> str:
    """Return a sentence on masked images that were written."""
    native, files, kept = (
        sum(getattr(meta, name) for meta in metas)
        for name in ("image_bytes", "image_file_bytes", "masked_bytes")
    )
    mask = metas[0].mask
    return (
        f"{folder}: {sum(meta.num_images for meta in metas)} images, {mask.kept} of "
        f"{mask.patches} patches kept in {kept} bytes; the images take {native} bytes as pixels "
        f"and {files} as files."
    )


def print_skipped(console: Console, skipped: Sequence[str]) -> None:
    """List the images that were left out, if any."""
    if skipped:
        console.print(f"Skipped {len(skipped)} unreadable image files:", highlight=False)
    for sentence in skipped:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _bytes(shard: PlannedShard) -> tuple[int, int, int, int]:
    """Return examples, native, kept-patch and token bytes; a token's scale is part of it."""
    meta = shard.meta
    layout = meta.layout()
    tokens = sum(
        dtype.itemsize * (meta.dim if name == "tokens" else 1) * meta.num_examples
        for name, (dtype, _) in layout.items()
        if name in ("tokens", "scales")
    )
    return meta.num_examples, meta.image_bytes, meta.masked_image_bytes, tokens


def _saved(native: int, tokens: int) -> str:
    return f"{100 * (1 - tokens / native):.1f}" if native else "-"
