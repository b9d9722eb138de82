"""The tokens of a comparison: their fingerprint, and one shard that pools all clients'."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from flower_ist.compare.plan import PlanError
from flower_ist.differences import differences
from flower_ist.files import new_folder
from flower_ist.tokens import demo as demo_tokens
from flower_ist.tokens.meta import ShardMeta, encoder_space
from flower_ist.tokens.shard import TokenShard, client_folder, open_shard, test_folder
from flower_ist.tokens.totals import of_all
from flower_ist.tokens.writer import ShardWriter
from flower_ist.wire.quantize import encoded_bytes


def fingerprint(data: str, clients: int) -> str:
    """Return a SHA-256 over the hashes of all shards of a comparison.

    Args:
        data: absolute folder with ``client-0`` to ``client-{clients - 1}`` and ``test``; empty:
            the demo tokens.
        clients: number of clients.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    digest = hashlib.sha256()
    if data:
        for shard in (*_open_all(data, clients), open_shard(test_folder(Path(data)))):
            digest.update("".join(sorted(shard.meta.sha256.values())).encode())
    else:
        demo_tokens.train_shard(clients - 1, clients)  # refuses more clients than it can serve
        for file in sorted(Path(demo_tokens.__file__).parent.glob("*.json")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def token_bytes(data: str, clients: int, per_client: bool = False) -> int:
    """Return the bytes of uploading all tokens once: in int8, with labels, in no envelope.

    Args:
        data: as for :func:`fingerprint`.
        clients: number of clients.
        per_client: of the client that has most of them, instead of all together.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    shards = (
        _open_all(data, clients)
        if data
        else [demo_tokens.train_shard(client, clients) for client in range(clients)]
    )
    sizes = []
    for shard in shards:
        tokens = encoded_bytes(np.dtype(np.float32), (len(shard), shard.meta.dim), "int8")
        label = np.min_scalar_type(shard.meta.num_classes - 1).itemsize
        sizes.append(tokens + label * len(shard))
    return max(sizes) if per_client else sum(sizes)


def pool(data: str, clients: int, folder: Path) -> None:
    """Write all clients' tokens as one client's shard, with the test shard beside it, once.

    Args:
        data: as for :func:`fingerprint`, not empty: the demo tokens have all rows for one client.
        clients: number of clients.
        folder: where ``client-0`` and ``test`` are to be.

    Raises:
        PlanError: the shards were not made alike.
        ShardError: one cannot be read, or the pooled one cannot be written.
    """
    target = client_folder(folder, 0)
    if not test_folder(folder).exists():
        with new_folder(test_folder(folder)) as unfinished:
            shutil.copytree(test_folder(Path(data)), unfinished, dirs_exist_ok=True)
    if target.exists():
        return
    shards = _open_all(data, clients)
    first = shards[0].meta
    for shard in shards:
        meta = shard.meta
        kind, wanted = _kind(meta), _kind(first)
        if differ := differences(wanted, kind):
            raise PlanError(
                f"The tokens of {meta.client} are not of the kind of {first.client} ({differ}): "
                "they cannot be pooled for 'central'; leave it out or encode all images alike."
            )
    whole = of_all([shard.meta for shard in shards])
    meta = replace(whole, client="pooled", source="all clients of a comparison")
    with ShardWriter(target, meta) as writer:
        for shard in shards:
            writer.append_shard(shard)


def _kind(meta: ShardMeta) -> dict[str, object]:
    """Return what all shards of a pool must have in common."""
    own = {name: getattr(meta, name) for name in ("dim", "class_names", "token_dtype")}
    return {**own, **encoder_space(meta.encoder)}


def _open_all(data: str, clients: int) -> list[TokenShard]:
    return [open_shard(client_folder(Path(data), client)) for client in range(clients)]
