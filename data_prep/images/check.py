"""The pass over a source's images before any work: which can be read, and what they measure.

It runs in threads, as PIL lets other threads run while it decodes, and keeps a few whole numbers
per image, never pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from data_prep import PrepError
from data_prep.images.decode import ImageFiles, look_at_file
from data_prep.images.prefetch import prefetch, usual_workers
from data_prep.images.reading import USUAL_READING, Reading, Unusual, find_unusual
from data_prep.images.stored import StoredImages

ON_ERROR = ("stop", "skip")


def check_on_error(choice: str) -> None:
    """Raise PrepError where what to do at an image that cannot be read is unknown."""
    if choice not in ON_ERROR:
        raise PrepError(f"The choice on error {choice!r} is unknown: use {' or '.join(ON_ERROR)}.")


@dataclass(frozen=True)
class ReadOptions:
    """How any source is read.

    Attributes:
        on_error: At an image that cannot be read: ``stop``, or ``skip`` to list it in the set's
            ``skipped``. The other images keep their ids.
        partial: A list of classes is given, so a class may lack images or be in one split only.
        workers: Threads that check images; None for one per core, up to 8.
        reading: What becomes of images that are not plain 8-bit RGB or gray.

    Raises:
        PrepError: the choice on error is unknown.
    """

    on_error: str = "stop"
    partial: bool = False
    workers: int | None = None
    reading: Reading = USUAL_READING

    def __post_init__(self) -> None:
        check_on_error(self.on_error)


@dataclass(frozen=True)
class Readable:
    """What a check found.

    Attributes:
        rows: (M,) positions of the readable images among all, in order.
        facts: (M, F) what ``look`` returned for each of them.
        skipped: A sentence for each of the others.
        unusual: What was done to those that are not plain 8-bit RGB or gray.
    """

    rows: NDArray[np.int64]
    facts: NDArray[np.int64]
    skipped: tuple[str, ...]
    unusual: tuple[Unusual, ...]


def check_images(
    look: Callable[[int], tuple[int, ...]],
    count: int,
    split: str,
    options: ReadOptions,
    name: Callable[[int], object],
) -> Readable:
    """Look at images 0 to ``count - 1``, several at once; the result is in their order.

    Args:
        look: Decodes image i and returns F whole numbers, of which the first three are its
            :class:`Facts`; raises PrepError where it cannot.
        count: Number of images, 1 and up.
        split: Names the set on the progress bar.
        options: What to do at an unreadable image, and the number of threads.
        name: Names image i in what is said of it.

    Raises:
        PrepError: an image cannot be read under ``stop`` (the first in order is named), or none can
            be read under ``skip``.
    """

    def attempt(row: int) -> tuple[int, ...] | PrepError:
        try:
            return look(row)
        except PrepError as err:
            return err

    rows, facts, skipped = [], [], []
    threads = usual_workers() if options.workers is None else options.workers
    with closing(prefetch(attempt, range(count), threads)) as attempts:
        for row, found in enumerate(track(attempts, f"Checking {split} images", total=count)):
            if not isinstance(found, PrepError):
                rows.append(row)
                facts.append(found)
            elif options.on_error == "stop":
                sentence = str(found).rstrip(".")
                raise PrepError(f"{sentence}; remove it or use --on-error skip.") from found
            else:
                skipped.append(str(found))
    if not rows:
        raise PrepError(f"None of {count} {split} images can be read: {skipped[0]}")
    table = np.array(facts, dtype=np.int64)
    _, traits, largest = table.T[:3]
    unusual = find_unusual(traits, largest, lambda row: name(rows[row]), split, options.reading)
    return Readable(np.array(rows, dtype=np.int64), table, tuple(skipped), unusual)


def check_files(
    paths: Sequence[Path], split: str, options: ReadOptions
) -> tuple[StoredImages, NDArray[np.int64], Readable]:
    """Check image files as :func:`check_images` does.

    Returns:
        The readable files, their bytes (M,), and what the check found.

    Raises:
        PrepError: as :func:`check_images`.
    """

    def look(row: int) -> tuple[int, ...]:
        return look_at_file(paths[row], options.reading)

    found = check_images(look, len(paths), split, options, paths.__getitem__)
    native, _, _, size, checksum = found.facts.T
    files = ImageFiles(tuple(paths[row] for row in found.rows), checksum, options.reading)
    return StoredImages(files, np.arange(len(found.rows)), native), size, found
