"""Write a folder of files whole or not at all, with private files never readable by others."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flower_ist.deploy.plan import DeployError


@dataclass(frozen=True)
class File:
    """A file's content and its mode, such as 0o600."""

    content: bytes
    mode: int = 0o644


def write_folder(folder: Path, files: Mapping[str, File]) -> None:
    """Write files into a new folder, which appears under its name when all are on the disk.

    The folder and all folders below are open to their owner only.

    Args:
        folder: must not exist; its parent must.
        files: path below the folder -> file.

    Raises:
        DeployError: the folder exists, or cannot be written. Nothing is left behind then.
    """
    taken = f"{folder} exists already and is left as it is: choose another folder."
    if os.path.lexists(folder):
        raise DeployError(taken)
    try:
        # A folder of mode 0700, in the same file system as its later name.
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as err:
        raise DeployError(f"{folder} cannot be written: {err.strerror}.") from err
    try:
        for name, file in files.items():
            _write(temporary, name, file)
        if os.path.lexists(folder):
            raise DeployError(taken)
        # Where another process was faster by a moment, its folder holds files: this fails then.
        temporary.rename(folder)
    except OSError as err:
        raise DeployError(f"{folder} cannot be written: {err.strerror}.") from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(root: Path, name: str, file: File) -> None:
    path = root / name
    # mkdir gives its mode to the last folder only, so each is made on its own.
    for parent in reversed(path.relative_to(root).parents):
        (root / parent).mkdir(mode=0o700, exist_ok=True)
    # Made with its mode, not changed to it: a private key is private from its first byte on.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
    with open(handle, "wb") as stream:
        stream.write(file.content)
        stream.flush()
        os.fsync(stream.fileno())
