"""Write a file so that neither a crash nor a full disk leaves half of it under its name."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from flower_ist.errors import FlowerIstError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NotWrittenError(FlowerIstError):
    """A file could not be written, in one sentence; what was there before is unchanged."""


def write_durably(file: Path, content: bytes) -> None:
    """Put ``content`` under the name ``file``, whole or not at all, also after a power cut.

    It is written to a temporary name in the same folder, flushed to the disk and renamed; then the
    folder is flushed, so that the new name survives too. A kill may leave the temporary file,
    ``.NAME.tmp``, which the next write of the same name replaces.

    Raises:
        NotWrittenError: it cannot be written; a file of that name is as it was.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open("wb", buffering=0) as written:
            write_through(written.fileno(), content)
        os.replace(temporary, file)
        sync_folder(file.parent)
    except OSError as err:
        with suppress(OSError):
            temporary.unlink()
        raise not_written(file, err) from err


def write_through(descriptor: int, content: bytes) -> None:
    """Write all of ``content`` to an open file and flush it to the disk.

    It goes past Python's buffers: what a full disk has refused must not be tried again on closing.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk: those created, renamed or removed in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def not_written(file: Path, err: OSError) -> NotWrittenError:
    """Return the sentence for a file that could not be written."""
    remedy = "make room" if err.errno in _NO_SPACE else "check the folder"
    reason = err.strerror or str(err) or type(err).__name__
    return NotWrittenError(
        f"{file} cannot be written ({reason}): {remedy}, then resume the run or start it again."
    )
