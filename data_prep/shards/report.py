"""What ``prep`` reports: tables of bytes and of the split, and the files beside the shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_prep.console import print_sentences, print_skipped
from data_prep.images.classes import write_classes
from data_prep.shards.chunks import PlannedShard
from data_prep.shards.job import Job
from data_prep.splits.plot import plot_split
from data_prep.splits.report import to_json, to_table
from flower_ist.console import cell
from flower_ist.files import write_file
from flower_ist.tables import new_table


def write_reports(out: Path, job: Job) -> None:
    """Write ``classes.json`` and, where images were split, ``split.json`` and ``split.png``.

    Raises:
        NotWrittenError: a file cannot be written.
    """
    write_classes(out / "classes.json", job.shards[0].meta.class_names)
    if job.split is not None:
        plot_split(job.split, out / "split.png")
        notes = {
            "unusual_images": [asdict(each) for each in job.unusual],
            "left_out": job.left_out,
            "unreadable": job.skipped,
        }
        write_file(out / "split.json", to_json(job.split, notes))


def print_notes(console: Console, job: Job, left_out: str) -> None:
    """Say before the work what is not read, and what is done to unusual images."""
    print_sentences(console, (left_out, *job.left_out, *(each.sentence() for each in job.unusual)))


def print_report(console: Console, job: Job) -> None:
    """Print the shards with their bytes, who holds what, and what was left out."""
    console.print(shard_table(job.shards))
    if job.split is not None:
        console.print(to_table(job.split))
    print_skipped(console, job.skipped)


def shard_table(shards: Sequence[PlannedShard]) -> Table:
    """Return a table of examples and bytes for each shard and in all.

    ``saved %`` compares the tokens with the native images; below zero the tokens are larger.
    """
    rows = [(shard.name, *_bytes(shard)) for shard in shards]
    table = new_table(show_footer=True)
    totals = [sum(row[column] for row in rows) for column in range(1, 5)]  # type: ignore[misc]
    titles = ("examples", "native bytes", "kept-patch bytes", "token bytes")
    table.add_column("shard", "all", no_wrap=True)
    for title, total in zip(titles, totals, strict=True):
        table.add_column(title, str(total), justify="right")
    table.add_column("saved %", _saved(totals[1], totals[3]), justify="right")
    for name, *counts in rows:
        table.add_row(cell(name), *map(str, counts), _saved(counts[1], counts[3]))
    return table


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
