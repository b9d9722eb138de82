"""The pass over a source's images before any work: which can be read, and what they measure.

It runs in threads, as PIL gives other threads way while it decodes, and keeps a few whole numbers
per image, never pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from data_prep import PrepError
from data_prep.images.prefetch import prefetch, usual_workers

ON_ERROR = ("stop", "skip")
"""What to do about an image that cannot be read."""


@dataclass(frozen=True)
class Readable:
    """What a check found.

    Attributes:
        rows: (M,) positions of the readable images among all, in order.
        facts: (M, F) what ``look`` returned for each of them.
        skipped: A sentence for each of the others.
    """

    rows: NDArray[np.int64]
    facts: NDArray[np.int64]
    skipped: tuple[str, ...]


def check_images(
    look: Callable[[int], tuple[int, ...]],
    count: int,
    split: str,
    on_error: str,
    workers: int | None = None,
) -> Readable:
    """Look at images 0 to ``count - 1``, several at once; the result is in their order.

    Args:
        look: Decodes image i and returns F whole numbers; raises PrepError where it cannot.
        count: Number of images, 1 and up.
        split: Names the set on the progress bar.
        on_error: A name in ``ON_ERROR``.
        workers: Threads; 0 for none, None for as many as there are cores, up to 8.

    Raises:
        PrepError: an image cannot be read under ``stop`` (the first in order is named), none can be
            read under ``skip``, or the choice on error is unknown.
    """
    if on_error not in ON_ERROR:
        raise PrepError(
            f"The choice on error {on_error!r} is unknown: use {' or '.join(ON_ERROR)}."
        )

    def attempt(row: int) -> tuple[int, ...] | PrepError:
        try:
            return look(row)
        except PrepError as err:
            return err

    rows, facts, skipped = [], [], []
    threads = usual_workers() if workers is None else workers
    with closing(prefetch(attempt, range(count), threads)) as attempts:
        for row, found in enumerate(track(attempts, f"Checking {split} images", total=count)):
            if not isinstance(found, PrepError):
                rows.append(row)
                facts.append(found)
            elif on_error == "stop":
                sentence = str(found).rstrip(".")
                raise PrepError(f"{sentence}; remove it or use --on-error skip.") from found
            else:
                skipped.append(str(found))
    if not rows:
        raise PrepError(f"None of {count} {split} images can be read: {skipped[0]}")
    return Readable(np.array(rows, dtype=np.int64), np.array(facts, dtype=np.int64), tuple(skipped))
