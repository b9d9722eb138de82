"""The demo tokens as shards on the disk, to rehearse a deployment without data of one's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from flower_ist.deploy.plan import DeployError
from flower_ist.tokens import demo as demo_tokens
from flower_ist.tokens.shard import TokenShard, client_folder, test_folder
from flower_ist.tokens.writer import ShardWriter


def write_demo_shards(folder: Path, clients: int) -> None:
    """Write ``client-0`` to ``client-{clients - 1}`` and ``test`` into a new folder.

    Raises:
        DeployError: the folder exists already, or cannot be written.
        ShardError: there are more clients than the demo tokens serve.
    """
    folder = folder.absolute()
    if os.path.lexists(folder):
        raise DeployError(f"{folder} exists already and is left as it is: choose another folder.")
    shards = [demo_tokens.train_shard(client, clients) for client in range(clients)]
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for client, shard in enumerate(shards):
                _write(client_folder(temporary, client), shard)
            _write(test_folder(temporary), demo_tokens.test_shard())
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as err:
        raise DeployError(f"{folder} cannot be written: {err.strerror}.") from err


def _write(folder: Path, shard: TokenShard) -> None:
    with ShardWriter(folder, shard.meta) as writer:
        # Rows are copied as they are stored: nothing is rounded twice.
        arrays = dict(shard.arrays())
        labels, image_ids = arrays.pop("labels"), arrays.pop("image_ids")
        writer.append_stored(arrays, labels, image_ids)
