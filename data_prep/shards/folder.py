"""Which token shards a folder holds."""

from __future__ import annotations

import re
from pathlib import Path

from data_prep import PrepError
from data_prep.errors import first_line
from flower_ist.tokens.shard import META_FILE

_CLIENT = re.compile(r"client-(\d+)")


def find_shards(path: Path) -> list[Path]:
    """Return ``path`` itself if it is a shard, else the shards in it, clients by number first.

    A shard is a folder with a meta file, also one that lacks its arrays, or a text file given
    itself. The folders ``client-*`` and ``test`` are taken for shards in any state, so that a
    broken one is not overlooked. Names that start with a dot are passed over.

    Raises:
        PrepError: there is no shard.
    """
    if path.is_file() or (path / META_FILE).is_file():
        return [path]
    try:
        folders = [folder for folder in path.iterdir() if folder.is_dir() and _is_shard(folder)]
    except OSError as err:
        raise PrepError(f"{path} cannot be listed: {first_line(err)}.") from err
    if not folders:
        raise PrepError(
            f"{path} holds no token shard: give a shard's folder, or a folder with client-0 and so "
            "on in it."
        )
    return sorted(folders, key=_by_number)


def _is_shard(folder: Path) -> bool:
    if folder.name.startswith("."):
        return False
    named = folder.name == "test" or _CLIENT.fullmatch(folder.name) is not None
    return named or (folder / META_FILE).is_file()


def _by_number(folder: Path) -> tuple[bool, int, str]:
    client = _CLIENT.fullmatch(folder.name)
    return client is None, int(client[1]) if client else 0, folder.name
