"""Which shard a client trains on: the only place where simulation and devices differ."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from flower_ist.tokens.demo import train_shard
from flower_ist.tokens.shard import ShardError, TokenShard, client_folder, open_shard


def open_client_shard(context: Context, *, verify: bool = False) -> TokenShard:
    """Open the shard of the client that runs in this context.

    ``verify`` reads all of it once and checks its hashes and values.

    * On a device ``data-path`` in the node config names the shard.
    * In simulation ``data-dir`` in the run config names a folder of shards, and the client's
      partition picks one.
    * With neither, the client gets its part of the embedded demo tokens.

    Raises:
        ShardError: the shard is missing or damaged, or the context names none.
    """
    path = context.node_config.get("data-path")
    if path is not None:
        return _open(Path(str(path)), verify)
    partition = context.node_config.get("partition-id")
    if partition is None:
        raise ShardError(
            "This SuperNode names no data: start it with --node-config \"data-path='/path/shard'\"."
        )
    folder = str(context.run_config.get("data-dir", ""))
    if folder:
        shard = client_folder(Path(folder), int(partition))
        if not shard.exists():
            raise ShardError(
                f"'data-dir' is {folder!r}, but holds no shard {shard.name!r}: give the folder "
                "that prep wrote with --out, and start no more SuperNodes than it has clients."
            )
        return _open(shard, verify)
    return _demo(int(partition), int(context.node_config["num-partitions"]))


# A process serves many messages of a few clients: each shard is opened once.
@lru_cache(maxsize=256)
def _open(path: Path, verify: bool) -> TokenShard:
    return open_shard(path, verify=verify)


@lru_cache(maxsize=256)
def _demo(partition: int, num_partitions: int) -> TokenShard:
    return train_shard(partition, num_partitions)
