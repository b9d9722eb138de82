"""The command ``inspect``: what shards hold, whether they are whole, what was masked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_prep import PrepError
from data_prep.commands.common import console
from flower_ist.console import print_text, say


def inspect(
    shards: Annotated[Path, typer.Argument(help="A shard, or a folder of shards.")],
    sheet: Annotated[
        Path | None, typer.Option(help="Draw images under their masks into this PNG.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="The images that the shards were made of, for --sheet.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train or test of the source; default: the shard's own.")
    ] = None,
    images: Annotated[int, typer.Option(help="The most images on the sheet.")] = 16,
) -> None:
    """Show what token shards hold and check every byte against its hash.

    SHARDS is one shard, or a folder that prep wrote; then all shards must also
    have the same encoder and classes. The exit code is 1 if anything is wrong.
    --sheet draws some images of the first shard and their masks, which follow
    from the seed and the images' ids.
    """
    from data_prep.images.reading import reading_of
    from data_prep.shards.inspect import inspect_shards, to_table
    from data_prep.shards.sheet import draw_sheet
    from data_prep.sources.open import read_source

    if (sheet is None) != (source is None):
        raise PrepError("A sheet needs both: --sheet FILE.png and --source IMAGES.")
    report = inspect_shards(shards)
    console.print(to_table(report))
    if sheet is not None and source is not None:
        whole = next((found.shard for found in report.inspections if found.shard), None)
        if whole is None:
            raise PrepError("No shard is whole: there is nothing to draw.")
        data = read_source(
            source,
            split or whole.meta.split,
            "skip",
            classes=whole.meta.class_names,
            reading=reading_of(whole.meta.reading),
        )
        print_text(console, f"Sheet: {draw_sheet(whole, data, sheet, images)}")
    for sentence in (*report.damages, *report.disagreements):
        say(f"Error: {sentence}", err=True)
    if not report.sound:
        raise typer.Exit(code=1)
