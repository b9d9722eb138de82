"""What this project refuses, as one sentence that says what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class FlowerIstError(Exception):
    """The base of all errors that are meant for the user; anything else is a bug of ours."""


class ArgumentError(FlowerIstError, ValueError):
    """A function or a class was called with a value that it cannot use."""


def first_line(err: BaseException) -> str:
    """Return the first line of an error's text without its final stop, or the error's type.

    Of a system error it is the reason alone: the sentence around it names the file.
    """
    text = (err.strerror if isinstance(err, OSError) else None) or str(err)
    lines = text.strip().splitlines() or [type(err).__name__]
    return lines[0].strip().rstrip(".:")


def why_unreadable(file: object, err: BaseException) -> str:
    """Return why a file cannot be read: that it is not the file itself, or an error's first line.

    A clone without git-lfs has, in the place of each large file, a text that points to it. Readers
    take it for a damaged file, each with a guess of its own.
    """
    if is_lfs_pointer(file):
        return "it is a pointer of git-lfs, not the file itself, which git lfs pull fetches"
    return first_line(err)


def is_lfs_pointer(file: object) -> bool:
    """Return whether a file is a pointer of git-lfs; False for one that cannot be opened."""
    try:
        with Path(str(file)).open("rb") as opened:
            return opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    except (OSError, ValueError):
        return False
