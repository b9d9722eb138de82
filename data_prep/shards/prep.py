"""From images to token shards in one call: ``prep(PrepSettings(source, out))``.

The settings are opened once, into encoder, mask, images and split. These make a job, a list of
chunks (:mod:`data_prep.shards.chunks`); each finished chunk is a file in ``OUT/.prep``. That one
mechanism serves three needs:

* A run that was stopped at any moment, even by ``kill -9``, resumes when the same command is given
  again. Its shards equal those of an uninterrupted run byte for byte.
* Several processes, one for each GPU say, share a job: process ``i`` of ``n`` is given
  ``shard_index=i, num_shards=n``. The one that finds all chunks finished assembles the shards. On
  machines that share no disk, copy what is in their ``OUT/.prep`` folders together into one of them
  and run ``prep`` there once more, without ``num_shards``: it only assembles.
* On a cluster with a shared disk, Ray's actors take the processes' place (``ray=True``).

Nothing lies under a shard's name before the shard is complete.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.encoders.open import open_encoder
from data_prep.images.reading import reading_of, unusual_choices
from data_prep.masks.names import check_views
from data_prep.patches.read import check_mask_fits, stored_meta
from data_prep.progress import image_progress
from data_prep.shards.assemble import all_assembled, assemble, refuse_existing
from data_prep.shards.chunks import count_images, encode_chunks
from data_prep.shards.encode import Encoding
from data_prep.shards.job import Job, plan_job
from data_prep.shards.report import print_notes, print_report, write_reports
from data_prep.shards.settings import PrepSettings
from data_prep.shards.work_folder import PLAN_FILE, WORK_FOLDER, WorkFolder, remove_work
from data_prep.splits.kinds import ClientSplit
from flower_ist.console import print_text, terminal

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["PrepSettings", "open_job", "prep"]


def prep(settings: PrepSettings, console: Console | None = None) -> list[Path]:
    """Make one token shard for each client and one for testing, in ``settings.out``.

    Beside the shards it writes ``classes.json`` (the class names, for other devices) and, where
    images were split among clients, ``split.json`` and ``split.png`` (who holds how many of each
    class). However many images there are, memory holds one chunk's tokens and a few batches of
    pixels, apart from what the source itself keeps there.

    Args:
        settings: Source, encoder, mask, split and how to run.
        console: Shows progress and tables; None for silence.

    Returns:
        The shards' folders, the test shard last; empty where other processes have chunks left. With
        ``append``, the one that has grown.

    Raises:
        PrepError: a setting, the source or the encoder cannot be used, or the work folder holds
            another command's work.
        ShardError: a shard exists already.
        NotWrittenError: a file cannot be written.
    """
    out, console = settings.out, console or terminal(quiet=True)
    if settings.append:
        from data_prep.shards.append import append

        return [append(settings, console)]
    # Open source, encoder, mask and split, and plan the shards that are made of them.
    job = open_job(settings)
    print_notes(console, job, settings.left_out())
    if not (out / WORK_FOLDER / PLAN_FILE).exists():
        refuse_existing(out, job.shards)
    # Encode what is not finished: a chunk at a time, so that a run that was stopped resumes.
    work = WorkFolder(out / WORK_FOLDER, job.plan)
    if not all_assembled(out, job.shards):
        encode_share(settings, job, work, console)
        missing = sum(not work.has(chunk.number) for chunk in job.chunks)
        # Another process may have assembled all of them meanwhile and removed the chunks.
        if missing and not all_assembled(out, job.shards):
            print_text(
                console,
                f"This process's share is finished; {missing} of {len(job.chunks)} chunks are left "
                "to others. The last one to finish makes the shards.",
            )
            return []
    # Assemble the shards from their chunks, and report.
    folders = assemble(out, job.shards, job.chunks, work)
    write_reports(out, job)
    remove_work(work.path)
    print_report(console, job)
    return folders


def open_job(settings: PrepSettings) -> Job:
    """Open encoder, mask, images and split, and plan the shards that are made of them.

    The same settings and source give the same job in every process and on every machine. Wrong
    settings are found before the images are read, which may take long.

    Raises:
        PrepError: the settings, the encoder or the images cannot be used.
    """
    settings.check()
    settings.refuse_inside(settings.out)
    # Images masked already have a mask and a size. Their patch size is not taken over: an encoder
    # of another one is the wrong encoder.
    stored = stored_meta(settings.source)
    kind, ratio, seed = "random", 0.5, 0
    interpolation, reading = settings.interpolation, settings.reading()
    if stored is not None:
        kind, ratio, seed = stored.mask.kind, stored.mask.ratio, stored.mask.seed
        interpolation, reading = stored.interpolation, reading_of(stored.reading)
    seed = seed if settings.seed is None else settings.seed
    encoder = open_encoder(settings, seed, None if stored is None else stored.image_size)
    encoding = Encoding(
        encoder,
        mask_kind=kind if settings.mask is None else settings.mask,
        mask_ratio=ratio if settings.mask_ratio is None else settings.mask_ratio,
        seed=seed,
        interpolation=interpolation,
        reading=reading,
        token_dtype=settings.dtype,
    )
    check_views(settings.views, encoding.mask)
    train, test = settings.read_images(seed)
    for data, views in ((train, settings.views), (test, 1)):
        if data is not None:
            asked = replace(encoding.mask, views=views)
            check_mask_fits(data, asked, encoder.record.image_size, encoder.record.patch_size)
    parts, split = settings.deal(train, seed)
    return plan_job(
        encoding,
        train,
        test,
        parts,
        split,
        views=settings.views,
        chunk_images=settings.chunk_images,
        asked={
            "client": settings.client,
            "split": str(ClientSplit.parse(settings.split)),
            **unusual_choices(settings.reading()),
        },
    )


def encode_share(settings: PrepSettings, job: Job, work: WorkFolder, console: Console) -> None:
    """Encode those of this process's chunks that are not finished."""
    mine = [c for c in job.chunks if c.number % settings.num_shards == settings.shard_index]
    left = [chunk for chunk in mine if not work.has(chunk.number)]
    images, finished = count_images(mine), count_images(mine) - count_images(left)
    with image_progress(console, "Encoding images", images, finished) as advance:
        if settings.ray:
            # Only clusters need it, and importing it takes seconds.
            from data_prep.shards.ray import encode_with_ray

            encode_with_ray(
                left,
                partial(open_job, settings),
                work.path,
                device=settings.device,
                batch_size=settings.batch_size,
                workers=settings.workers,
                advance=advance,
            )
        else:
            encode_chunks(
                job.encoding,
                job.shards,
                left,
                work,
                batch_size=settings.batch_size,
                workers=settings.workers,
                advance=advance,
            )
