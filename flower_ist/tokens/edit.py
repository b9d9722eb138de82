"""Change a shard that is in use: examples join it or leave it, in one step.

The changed shard is written beside the old one and takes its place at once
(:func:`flower_ist.files.replacement_of`): whoever opens it finds the old one or the new one, and a
kill at any moment leaves one of them. Clients that have it open keep reading the old files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.files import replacement_of
from flower_ist.tokens.meta import ShardError, ShardMeta
from flower_ist.tokens.shard import open_shard
from flower_ist.tokens.totals import of_all, of_some
from flower_ist.tokens.writer import ShardWriter

Rows = tuple[Mapping[str, NDArray[Any]], NDArray[np.integer[Any]], NDArray[np.int64]]
"""Stored tokens (and scales), labels and image ids of some examples."""


def joined_meta(shard: ShardMeta, new: ShardMeta) -> ShardMeta:
    """Return the meta data of a shard that some examples have joined.

    Args:
        shard: Of the shard as it is.
        new: Of the examples. Their classes are the shard's, and may be more; in another order the
            shard's labels are renumbered.

    Raises:
        ShardError: a class of the shard is not among the new ones.
    """
    if missing := [name for name in shard.class_names if name not in set(new.class_names)]:
        raise ShardError(
            f"The class schema lacks the class {missing[0]!r} of the shard: add it, a class of a "
            "shard cannot be taken away."
        )
    return replace(of_all([shard, new]), class_names=new.class_names)


def join(
    folder: Path,
    meta: ShardMeta,
    new: Iterable[Rows],
    before: Callable[[ShardMeta], object] = lambda meta: None,
) -> None:
    """Put examples behind those of a shard.

    Args:
        folder: The shard.
        meta: Of the whole, see :func:`joined_meta`.
        new: The examples' rows as they are stored, in their order.
        before: Called with the complete meta data when the whole is written, before it takes the
            shard's place.

    Raises:
        ShardError: the shard is damaged, or the rows do not fit the meta data.
        NotWrittenError: the whole cannot be written; the shard is as it was.
    """
    with replacement_of(folder) as unfinished:
        shard = open_shard(folder, verify=True)
        number = {name: label for label, name in enumerate(meta.class_names)}
        labels = np.array([number[name] for name in shard.meta.class_names])
        kept = ((p.arrays(), labels[p.labels], p.image_ids) for p in shard.chunks())
        before(_write(unfinished, meta, chain(kept, new)))


def drop(folder: Path, image_ids: Collection[int]) -> int:
    """Take all examples of some images out of a shard, and return how many these were.

    Args:
        folder: The shard.
        image_ids: Of the images.

    Raises:
        ShardError: the shard is damaged, lacks one of the images, or would be left without any.
        NotWrittenError: the new shard cannot be written; the shard is as it was.
    """
    with replacement_of(folder) as unfinished:
        shard = open_shard(folder, verify=True)
        asked = np.unique(np.array(list(image_ids), dtype=np.int64))
        if len(missing := np.setdiff1d(asked, shard.image_ids)):
            raise ShardError(f"{folder} has no image {missing[0]}: the other images are as before.")
        left = len(shard) - int(np.isin(shard.image_ids, asked).sum())
        if not left:
            raise ShardError(
                f"{folder} would be left without any image: remove the folder instead."
            )
        parts = (part.select(~np.isin(part.image_ids, asked)) for part in shard.chunks())
        _write(
            unfinished,
            of_some(shard.meta, left),
            ((p.arrays(), p.labels, p.image_ids) for p in parts),
        )
        return len(shard) - left


def _write(folder: Path, meta: ShardMeta, rows: Iterable[Rows]) -> ShardMeta:
    """Write a shard, and return its meta data with the hashes."""
    with ShardWriter(folder, meta) as writer:
        for stored, labels, ids in rows:
            writer.append_stored(stored, labels, ids)
    return open_shard(folder).meta
