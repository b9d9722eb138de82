"""Finished chunks -> token shards under their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_prep import PrepError
from data_prep.shards.chunks import Chunk, PlannedShard
from data_prep.shards.work_folder import WorkFolder
from flower_ist.files import NotWrittenError
from flower_ist.tokens.meta import ShardError
from flower_ist.tokens.shard import open_shard
from flower_ist.tokens.writer import ShardWriter


def assemble(
    out: Path, shards: Sequence[PlannedShard], chunks: Sequence[Chunk], work: WorkFolder
) -> list[Path]:
    """Write all shards of ``out`` from their chunks, one chunk in memory at a time.

    Shards that an earlier run of the same plan assembled are kept. Two processes may do this at
    once: both write the same bytes under names of their own, and the first to finish a shard gives
    it its name.

    Returns:
        The shards' folders.

    Raises:
        PrepError: a chunk is damaged or gone.
        ShardError: another shard has the name of one.
        NotWrittenError: a shard cannot be written.
    """
    parts: dict[int, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        parts[chunk.shard].append(chunk)
    for index, shard in enumerate(shards):
        folder = out / shard.name
        if _is_assembled(folder, shard):
            continue
        try:
            with ShardWriter(folder, shard.meta, scratch=work.path) as writer:
                for chunk in parts[index]:
                    stored = work.read(chunk.number)
                    writer.append_stored(stored, *shard.labels_and_ids(chunk.part))
        except (ShardError, NotWrittenError, FileNotFoundError) as err:
            # The other process was first with this shard, or with all and removed the chunks.
            if _is_assembled(folder, shard):
                continue
            if isinstance(err, FileNotFoundError):
                raise PrepError(f"{err.filename} is gone: start the same command again.") from err
            raise
    return [out / shard.name for shard in shards]


def all_assembled(out: Path, shards: Sequence[PlannedShard]) -> bool:
    """Return whether every shard has its name already.

    Raises:
        ShardError: another shard, or something else, has one of the names.
    """
    return all(_is_assembled(out / shard.name, shard) for shard in shards)


def refuse_existing(out: Path, shards: Sequence[PlannedShard]) -> None:
    """Find out now, not after an hour of encoding, that a shard's name is taken.

    Raises:
        ShardError: it is.
    """
    for shard in shards:
        folder = out / shard.name
        if folder.exists():
            raise ShardError(f"{folder} exists already: choose another folder or remove it.")


def _is_assembled(folder: Path, shard: PlannedShard) -> bool:
    if not folder.exists():
        return False
    found = open_shard(folder).meta
    if replace(found, sha256={}) != shard.meta:
        raise ShardError(f"{folder} is another shard: choose another folder or remove it.")
    return True
