"""The choice of a client's shard: the only place where simulation and devices differ."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from flwr.app import ConfigRecord, Context

from flower_ist.tokens.demo import train_shard
from flower_ist.tokens.shard import (
    ShardError,
    TokenShard,
    client_folder,
    open_shard,
    verify_shard,
)
from flower_ist.wire.records import configs_in

# What is remembered of a verified shard, in the context's state: it is the SuperNode's own, and
# lasts from message to message although each has a process of its own.
VERIFIED_RECORD = "verified-shard"

Stamps = tuple[tuple[str, int, int], ...]


def open_client_shard(context: Context) -> TokenShard:
    """Open the shard of the client that runs in this context.

    * On a device ``data-path`` in the node config names the shard.
    * In simulation ``data-dir`` in the run config names a folder of shards, and the client's
      partition picks one.
    * With neither, the client gets its part of the embedded demo tokens.

    The whole shard is read and verified on the first message of a run, and again as soon as the
    size, modification time or hash of one of its files changes.

    Raises:
        ShardError: the shard is missing or damaged, or the context names none.
    """
    path = _path(context)
    if path is None:
        node = context.node_config
        return _demo(int(node["partition-id"]), int(node["num-partitions"]))
    stamps = _stamps(path)
    try:
        shard = _open(path, stamps)
    except ShardError:
        # It may have been replaced while it was opened: images have joined it, or left it.
        if (again := _stamps(path)) == stamps:
            raise
        stamps = again
        shard = _open(path, stamps)
    hashes = {name: shard.meta.sha256.get(Path(name).stem, "") for name, *_ in stamps}
    found = {name: f"{size} {changed} {hashes[name]}" for name, size, changed in stamps}
    verified = configs_in(context.state).get(VERIFIED_RECORD)
    if verified is None or dict(verified) != found:
        verify_shard(shard, str(path))
        context.state[VERIFIED_RECORD] = ConfigRecord({**found})
    return shard


def _path(context: Context) -> Path | None:
    """Return the path of the client's shard; None for the demo's."""
    path = context.node_config.get("data-path")
    if path is not None:
        return Path(str(path))
    partition = context.node_config.get("partition-id")
    if partition is None:
        raise ShardError(
            "This SuperNode names no data: start it with --node-config \"data-path='/path/shard'\"."
        )
    folder = str(context.run_config.get("data-dir", ""))
    if not folder:
        return None
    shard = client_folder(Path(folder), int(partition))
    if not shard.exists():
        raise ShardError(
            f"'data-dir' is {folder!r}, but holds no shard {shard.name!r}: give the folder "
            "that prep wrote with --out, and start no more SuperNodes than it has clients."
        )
    return shard


def _stamps(path: Path) -> Stamps:
    """Return the name, size and modification time of a shard's files; faults are found later."""
    files: list[Path] = []
    with suppress(OSError):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    stamps = []
    for file in files:
        with suppress(OSError):
            facts = file.stat()
            stamps.append((file.name, facts.st_size, facts.st_mtime_ns))
    return tuple(stamps)


# A process may serve many messages of a few clients: each shard is opened once, until it changes.
@lru_cache(maxsize=256)
def _open(path: Path, stamps: Stamps) -> TokenShard:
    return open_shard(path)


@lru_cache(maxsize=256)
def _demo(partition: int, num_partitions: int) -> TokenShard:
    return train_shard(partition, num_partitions)
