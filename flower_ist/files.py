"""Write a file or a folder whole or not at all; append a line durably. Nothing else here writes.

An unfinished file is next to its final name under a name that nobody can guess,
``.NAME.0123456789abcdef.tmp``. A kill may leave it there, where nothing reads it. Whatever has its
final name is whole, even after a power failure.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from flower_ist.errors import FlowerIstError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NotWrittenError(FlowerIstError):
    """A file or a folder could not be written; what was there before is unchanged."""


def write_file(file: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Write ``content`` to ``file``; a string as UTF-8. See :func:`whole_file`."""
    with whole_file(file, mode) as stream:
        _write_all(stream.fileno(), encoded(content))


def encoded(content: bytes | str) -> bytes:
    """Return a text as UTF-8. Bytes of a path that are no text become escapes, as JSON has them."""
    return content.encode(errors="backslashreplace") if isinstance(content, str) else content


@contextmanager
def whole_file(file: Path, mode: int = 0o666) -> Iterator[BufferedWriter]:
    """Yield a stream to write to; its content replaces ``file`` when the block ends without error.

    Any exception in the block leaves an existing file unchanged. Processes that write the same file
    at once do not interfere: the last one to finish determines its content.

    Args:
        file: the final name, in a folder that exists.
        mode: of a file that is private from its first byte, 0o600; else the umask decides.

    Raises:
        NotWrittenError: it cannot be written, for instance on a full disk.
    """
    temporary = _unfinished(file)
    with _told_of(file):
        stream = new_file(temporary, mode)
    try:
        with _told_of(file), stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        rename_file(temporary, file)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def new_folder(folder: Path, *, scratch: Path | None = None, mode: int = 0o777) -> Iterator[Path]:
    """Yield a folder to fill with :func:`new_file`; it gets its name when the block succeeds.

    Any exception in the block removes what was written.

    Args:
        folder: the final name; its parent folders are created.
        scratch: a folder on the same disk for the unfinished one; None: next to its final name.
        mode: 0o700 for a folder that is closed to others from the start.

    Raises:
        NotWrittenError: the folder exists already, or cannot be written.
    """
    target = folder.absolute()
    refuse_existing(target)
    temporary = _unfinished((scratch or target.parent) / target.name)
    with _told_of(target):
        if not target.parent.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode)
    try:
        try:
            yield temporary
        except OSError as err:
            # An error that names another file is not ours; a full disk's names none.
            if err.filename is None or str(err.filename).startswith(f"{temporary}{os.sep}"):
                raise _not_written(target, err) from err
            raise
        with _told_of(target):
            for found, _, names in os.walk(temporary, topdown=False):
                for name in (*names, "."):
                    _sync(Path(found, name))
            refuse_existing(target)
            os.rename(temporary, target)
            _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replacement_of(folder: Path) -> Iterator[Path]:
    """Yield a name under which to make a folder; it takes the other's place in one step.

    Whoever opens ``folder`` finds the old one or the new one, and a kill leaves one of them under
    its name: the kernel exchanges the two names. Where a file system cannot, there are two steps,
    and :func:`restore_folder` mends what a kill between them leaves. The old files live on for
    whoever has them open. The old folder is locked meanwhile.

    Raises:
        NotWrittenError: another process is replacing it, or it cannot be replaced.
    """
    target = folder.absolute()
    made = _unfinished(target)
    with _told_of(target):
        lock = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = not os.path.samestat(os.fstat(lock), os.stat(target))
        except BlockingIOError:
            taken = True
        if taken:
            raise NotWrittenError(f"{folder} is being changed: wait, then try again.")
        yield made
        with _told_of(target):
            if not _exchange(made, target):
                os.rename(target, _previous(target))
                os.rename(made, target)
            _sync(target.parent)
    finally:
        os.close(lock)
        for rest in (made, _previous(target)):
            if target.exists():
                shutil.rmtree(rest, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Give a folder its name back that a killed :func:`replacement_of` may have left without."""
    target = folder.absolute()
    if not target.exists() and _previous(target).exists():
        with _told_of(target):
            os.rename(_previous(target), target)


def new_file(file: Path, mode: int = 0o666) -> BufferedWriter:
    """Open a file that must not exist yet, for instance in a :func:`new_folder`.

    It is created with its mode, not changed to it: a private key is private from its first byte.

    Raises:
        OSError: it exists, even as a link, or cannot be created.
    """
    return open(file, "xb", opener=lambda name, flags: _no_link(name, flags, mode))


def append_file(file: Path, content: bytes) -> None:
    """Append to a file and flush it to the disk, or leave the file unchanged.

    The file is open only during the call: there is nothing to close. A link is not followed.

    Raises:
        NotWrittenError: it cannot be written, for instance on a full disk.
    """
    # Past Python's buffers: what a full disk has refused must not be tried again on closing.
    with _told_of(file), open(file, "ab", buffering=0, opener=_no_link) as opened:
        before = opened.tell()
        try:
            _write_all(opened.fileno(), content)
            os.fsync(opened.fileno())
        except OSError:
            with suppress(OSError):
                os.ftruncate(opened.fileno(), before)
            raise
        if before == 0:
            _sync(file.parent)


def cut_file(file: Path, size: int) -> None:
    """Keep the first ``size`` bytes of a file.

    Raises:
        NotWrittenError: it cannot be changed.
    """
    with _told_of(file), open(file, "r+b", buffering=0, opener=_no_link) as opened:
        opened.truncate(size)


def rename_file(file: Path, name: Path) -> None:
    """Give a whole file another name, in place of the file that has it.

    Raises:
        NotWrittenError: it cannot be renamed; both are as they were.
    """
    with _told_of(name):
        os.replace(file, name)
        _sync(name.parent)


def output_file(file: Path) -> BufferedWriter:
    """Open a file to which another program's output is appended as it arrives.

    Raises:
        NotWrittenError: it cannot be opened.
    """
    with _told_of(file):
        return open(file, "ab", opener=_no_link)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, unless they exist.

    Raises:
        NotWrittenError: it cannot be created.
    """
    if not folder.is_dir():
        with _told_of(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _sync(folder.parent)


def refuse_existing(folder: Path) -> None:
    """Check before any work whether :func:`new_folder` would refuse.

    Raises:
        NotWrittenError: something has that name, even a dangling link.
    """
    if os.path.lexists(folder):
        raise NotWrittenError(f"{folder} exists already: choose another folder or remove it.")


def is_unfinished(path: Path) -> bool:
    """Return whether a name is that of an unfinished file; it may still be being written."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left in a folder to which no other process writes."""
    for path in filter(is_unfinished, list(folder.rglob("*"))):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _no_link(name: str, flags: int, mode: int = 0o666) -> int:
    """Open a file, but not what a link of this name points to: others may have planted it."""
    return os.open(name, flags | os.O_NOFOLLOW, mode)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous.tmp")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once by Linux's renameat2; return whether that could be done."""
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    if call is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(path: Path) -> None:
    """Flush to the disk a file's content, or a folder's names: created, renamed or removed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Turn a system error into a sentence about ``path``."""
    try:
        yield
    except OSError as err:
        raise _not_written(path, err) from err


def _not_written(path: Path, err: OSError) -> NotWrittenError:
    remedy = "make room" if err.errno in _NO_SPACE else "check the folder"
    reason = err.strerror or str(err) or type(err).__name__
    return NotWrittenError(
        f"{path} cannot be written ({reason}): {remedy}, then resume or start again."
    )
