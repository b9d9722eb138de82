"""From images to token shards in one call: ``prep(PrepSettings(source, out))``.

The work is a list of chunks (:mod:`data_prep.shards.chunks`); each finished one is a file in
``OUT/.prep``. That one mechanism serves three needs:

* A run that was ended at any moment, by ``kill -9`` too, goes on when the same command is given
  again. Its shards equal those of an uninterrupted run byte for byte.
* Several processes, one for each GPU say, share a job: process ``i`` of ``n`` is given
  ``shard_index=i, num_shards=n``. The one that finds all chunks finished assembles the shards. On
  machines that share no disk, copy what is in their ``OUT/.prep`` folders together into one of them
  and run ``prep`` there once more, without ``num_shards``: it only assembles.
* On a cluster with a shared disk, Ray's actors take the processes' place (``ray=True``).

Nothing lies under a shard's name before the shard is complete.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from data_prep.atomic_file import atomic_file
from data_prep.images.classes import check_place, write_classes
from data_prep.shards.assemble import assemble, is_assembled
from data_prep.shards.chunks import Chunk, encode_chunks
from data_prep.shards.job import Job, plan_job
from data_prep.shards.report import image_progress, print_skipped, shard_table
from data_prep.shards.settings import PrepSettings
from data_prep.shards.work_folder import PLAN_FILE, WORK_FOLDER, WorkFolder
from data_prep.splits.plot import plot_split
from data_prep.splits.report import to_json, to_table
from flower_ist.tokens.meta import ShardError

__all__ = ["PrepSettings", "prep"]


def prep(settings: PrepSettings, console: Console | None = None) -> list[Path]:
    """Make one token shard for each client and one for testing, in ``settings.out``.

    Beside the shards it writes ``classes.json`` (the class names, for other devices) and, where
    images were split among clients, ``split.json`` and ``split.png`` (who holds how many of each
    class). Memory holds a chunk's tokens and a few batches of pixels, whatever the number of
    images, apart from what the source itself keeps there.

    Args:
        settings: Source, encoder, mask, split and how to run.
        console: Shows progress and tables; None for silence.

    Returns:
        The shards' folders, the test shard last; empty where other processes have chunks left.

    Raises:
        PrepError: a setting, the source or the encoder cannot be used, or the work folder holds
            another command's work or cannot be written.
        ShardError: a shard exists already or cannot be written.
    """
    if settings.save_classes is not None:
        check_place(settings.save_classes)
    job = plan_job(settings)
    if console is not None and job.left_out:
        console.print(job.left_out, highlight=False, markup=False, soft_wrap=True)
    path = settings.out / WORK_FOLDER
    if not (path / PLAN_FILE).exists():
        _refuse_existing(settings.out, job)
    work = WorkFolder(path, job.plan)
    _encode(settings, job, work, console)
    missing = sum(not work.has(chunk.number) for chunk in job.chunks)
    if missing and not _all_assembled(settings.out, job):
        if console is not None:
            console.print(
                f"This process's share is finished; {missing} of {len(job.chunks)} chunks are left "
                "to others. The last one to finish makes the shards.",
                highlight=False,
                soft_wrap=True,
            )
        return []
    folders = assemble(settings.out, job.shards, job.chunks, work)
    _write_reports(settings, job)
    work.remove()
    if console is not None:
        console.print(shard_table(job.shards))
        if not settings.client:
            console.print(to_table(job.split))
        print_skipped(console, job.skipped)
    return folders


def _refuse_existing(out: Path, job: Job) -> None:
    for shard in job.shards:
        # Found out now, not after an hour of encoding.
        if (out / shard.name).exists():
            raise ShardError(
                f"{out / shard.name} exists already: choose another folder or remove it."
            )


def _all_assembled(out: Path, job: Job) -> bool:
    return all(is_assembled(out / shard.name, shard) for shard in job.shards)


def _encode(settings: PrepSettings, job: Job, work: WorkFolder, console: Console | None) -> None:
    if _all_assembled(settings.out, job):
        return
    mine = [c for c in job.chunks if c.number % settings.num_shards == settings.shard_index]
    left = [chunk for chunk in mine if not work.has(chunk.number)]
    finished = _images(mine) - _images(left)
    with image_progress(console, "Encoding images", _images(mine), finished) as advance:
        if settings.ray:
            # Only clusters need it, and importing it takes seconds.
            from data_prep.shards.ray import encode_with_ray

            encode_with_ray(settings, left, advance)
            return
        encode_chunks(
            job.encoding,
            job.shards,
            left,
            work,
            batch_size=settings.batch_size,
            workers=settings.workers,
            advance=advance,
        )


def _images(chunks: list[Chunk]) -> int:
    return sum(len(chunk) for chunk in chunks)


def _write_reports(settings: PrepSettings, job: Job) -> None:
    for file in (settings.out / "classes.json", settings.save_classes):
        if file is not None:
            write_classes(file, job.split.class_names)
    if not settings.client:
        plot_split(job.split, settings.out / "split.png")
        with atomic_file(settings.out / "split.json") as temporary:
            temporary.write_text(to_json(job.split), encoding="utf-8")
