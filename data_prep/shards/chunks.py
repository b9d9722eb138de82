"""Encoding as a list of chunks, each a fixed number of images of one shard.

Chunks make a run resumable, and several processes, machines or Ray's actors can share them: a
chunk's tokens depend on its own images only, whoever encodes it and when.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.images.image_set import ImageSet
from data_prep.images.prefetch import prefetch
from data_prep.progress import Advance
from data_prep.shards.encode import Batch, Encoding
from data_prep.shards.work_folder import WorkFolder
from flower_ist.tokens.meta import ShardMeta
from flower_ist.tokens.writer import stored_rows


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be made.

    Attributes:
        data: The set that its images are in.
        rows: (N,) which of them.
        meta: Its meta data without the hashes; ``meta.client`` is its folder's name.
    """

    data: ImageSet
    rows: NDArray[np.intp]
    meta: ShardMeta

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.meta.client

    @property
    def views(self) -> int:
        """Examples per image."""
        return self.meta.mask.views

    def labels_and_ids(self, part: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return labels and image ids of the examples (B * views,) of some of the images."""
        rows = self.rows[part]
        labels, ids = self.data.labels[rows], self.data.image_ids[rows]
        return np.repeat(labels, self.views), np.repeat(ids, self.views)


@dataclass(frozen=True)
class Chunk:
    """``part`` of the images of shard ``shard``; ``number`` counts over all shards."""

    number: int
    shard: int
    part: slice

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self.part.stop - self.part.start)


def cut_chunks(shards: Sequence[PlannedShard], images: int) -> list[Chunk]:
    """Cut each shard into chunks of ``images`` images; its last one may be smaller."""
    parts = [
        (index, slice(start, min(start + images, len(shard.rows))))
        for index, shard in enumerate(shards)
        for start in range(0, len(shard.rows), images)
    ]
    return [Chunk(number, index, part) for number, (index, part) in enumerate(parts)]


def count_images(chunks: Collection[Chunk]) -> int:
    """Return the number of images in all of some chunks."""
    return sum(map(len, chunks))


def encode_chunks(
    encoding: Encoding,
    shards: Sequence[PlannedShard],
    chunks: Collection[Chunk],
    work: WorkFolder,
    *,
    batch_size: int,
    workers: int,
    advance: Advance = lambda images: None,
) -> None:
    """Encode chunks one after the other and store each when it is whole.

    At most one chunk of tokens and ``2 * workers`` batches of pixels are in memory.

    Args:
        encoding: Encoder and mask.
        shards: What the chunks are parts of.
        chunks: The ones to encode.
        work: Where finished chunks go.
        batch_size: Images encoded at once; a chunk's last batch may be smaller.
        workers: Threads that decode ahead; 0 to decode in between.
        advance: Called with the number of images after each batch.

    Raises:
        PrepError: an image cannot be read or a chunk cannot be written.
        ShardError: a token cannot be stored.
    """

    def prepare(item: tuple[Chunk, slice]) -> tuple[Chunk, bool, Batch]:
        chunk, part = item
        shard = shards[chunk.shard]
        batch = encoding.prepare(shard.data.take(shard.rows[part]), shard.views)
        return chunk, part.stop == chunk.part.stop, batch

    tokens = []
    # One stream over all chunks: the threads need not wait at a chunk's end.
    with closing(prefetch(prepare, _batches(chunks, batch_size), workers)) as prepared:
        for chunk, last, batch in prepared:
            tokens.append(encoding.tokens(batch))
            if last:
                images = f"images {chunk.part.start} to {chunk.part.stop - 1}"
                where = f"{images} of {shards[chunk.shard].name}"
                rows = stored_rows(np.concatenate(tokens), encoding.token_dtype, where)
                work.write(chunk.number, rows)
                tokens.clear()
            advance(len(batch.pixels))


def _batches(chunks: Collection[Chunk], batch_size: int) -> Iterator[tuple[Chunk, slice]]:
    for chunk in chunks:
        for start in range(chunk.part.start, chunk.part.stop, batch_size):
            yield chunk, slice(start, min(start + batch_size, chunk.part.stop))
