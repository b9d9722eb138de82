"""The command ``mask``: images to kept patches, for a gateway that encodes them."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from data_prep.commands.common import command_of, console
from data_prep.console import print_sentences, print_skipped
from data_prep.options import option
from data_prep.patches.settings import MaskSettings
from data_prep.sources.settings import SourceSettings
from flower_ist.console import print_text


@dataclass(frozen=True)
class MaskCommand(MaskSettings, SourceSettings):
    """How images are masked, which images, and where the kept patches go."""

    out: Path = option("New folder for the kept patches.")
    _: KW_ONLY
    workers: int | None = option("Threads; default: one per core, up to 8.", None, panel="Running")


@command_of(MaskCommand)
def mask(settings: MaskCommand) -> None:
    """Write the kept patches of images, for a device too weak to run an encoder.

    SOURCE is whatever prep takes. OUT is then a source, too: on a gateway prep OUT
    makes the same tokens as prep SOURCE with the same encoder, mask, seed and
    sizes. Which patches were kept is not stored: it follows from the seed and the
    images' ids.
    """
    from data_prep.patches.write import masked_summary, write_masked
    from data_prep.progress import image_progress
    from flower_ist.files import refuse_existing

    out, workers = settings.out, settings.workers
    reading = settings.reading()
    settings.refuse_inside(out)
    refuse_existing(out)
    train, test = settings.read_images(settings.seed, workers)
    sets = [train] if test is None else [train, test]
    print_sentences(
        console,
        (
            settings.left_out(),
            *(sentence for data in sets for sentence in data.left_out),
            *(unusual.sentence() for data in sets for unusual in data.unusual),
        ),
    )
    with image_progress(console, "Masking images", sum(map(len, sets))) as advance:
        metas = write_masked(
            train, out, settings, test=test, reading=reading, workers=workers, advance=advance
        )
    print_text(console, masked_summary(out, metas))
    print_skipped(console, (sentence for data in sets for sentence in data.skipped))
