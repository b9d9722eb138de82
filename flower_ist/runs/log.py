"""The run log: one JSON object per round, one per line, on the disk as soon as the round is over.

Every field is described in docs/measuring.md. A crash loses at most the line being written, and a
reader skips such an incomplete last line. This module imports neither flwr nor torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flower_ist.errors import FlowerIstError
from flower_ist.files import append_file, cut_file, make_folder, new_file

RUN_LOG = "run.jsonl"
DROPPED_LOG = "run.dropped.jsonl"


class RunLogError(FlowerIstError):
    """A run log is missing, cannot be read, or belongs to another run."""


class RunLog:
    """Append rounds to ``run.jsonl``, each flushed to the disk before the next begins.

    Raises:
        RunLogError: the folder already holds a run; nothing is ever overwritten.
        NotWrittenError: the folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RUN_LOG
        self._hash = hashlib.sha256()
        make_folder(folder)
        try:
            new_file(self.path).close()
        except FileExistsError:
            raise RunLogError(
                f"{folder} holds a run already: choose another output folder."
            ) from None
        except OSError as err:
            raise RunLogError(f"The run log cannot be written: {err}.") from err

    @classmethod
    def reopen(cls, folder: Path, size: int, sha256: str = "") -> RunLog:
        """Continue an existing log after its first ``size`` bytes.

        What follows them (unfinished rounds, an incomplete line) moves to ``run.dropped.jsonl``.

        Args:
            folder: of the run.
            size: bytes of the rounds that are done.
            sha256: what :attr:`sha256` was after them; empty: it is not known.

        Raises:
            RunLogError: the log's first ``size`` bytes are not whole lines, or others than then.
            NotWrittenError: the log, or what was dropped, cannot be written.
        """
        log = cls.__new__(cls)
        log.path = folder / RUN_LOG
        try:
            content = log.path.read_bytes()
        except OSError as err:
            raise RunLogError(f"There is no readable run log at {log.path}: {err}.") from err
        log._hash = hashlib.sha256(content[:size])
        is_whole = len(content) >= size and content[:size][-1:] in (b"", b"\n")
        if not is_whole or sha256 not in ("", log.sha256):
            raise RunLogError(
                f"{log.path} is not the log of its checkpoint, which ends after {size} bytes: it "
                "was changed, so the run cannot go on; choose another output folder."
            )
        if dropped := content[size:]:
            # A kill between the two steps leaves a line twice, but loses none.
            append_file(folder / DROPPED_LOG, dropped.rstrip(b"\n") + b"\n")
            cut_file(log.path, size)
        return log

    @property
    def size(self) -> int:
        """Length of the log in bytes."""
        return self.path.stat().st_size

    @property
    def sha256(self) -> str:
        """SHA-256 of the log's bytes, in hex."""
        return self._hash.hexdigest()

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one round. The file is closed again afterward.

        Raises:
            NotWrittenError: it cannot be written, for instance on a full disk; the log is
                unchanged.
        """
        content = (json.dumps(_plain(line), allow_nan=False, default=str) + "\n").encode()
        append_file(self.path, content)
        self._hash.update(content)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock a run's folder against a second process; the lock ends with this one, however it ends.

    Raises:
        RunLogError: another process, such as a ServerApp whose SuperLink was killed, holds it.
    """
    import fcntl  # POSIX only, as servers are; logs are read everywhere

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunLogError(
            f"Another process writes to {folder}: end it, or choose another output folder."
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


def read_run(path: Path) -> list[dict[str, Any]]:
    """Read a run's rounds from its folder or from the file itself.

    Raises:
        RunLogError: there is no run log, it is empty, or a line other than the last is damaged.
    """
    file = path
    try:
        # In a folder that we may not enter even this raises, in Python 3.11.
        file = path / RUN_LOG if path.is_dir() else path
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise RunLogError(f"There is no readable run log at {file}: {err}.") from err
    rounds: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            content = None
        if isinstance(content, dict) and "round" in content:
            rounds.append(content)
        elif number < len(lines):
            raise RunLogError(f"Line {number} of {file} is not a round of a run log.")
    if not rounds:
        raise RunLogError(f"{file} holds no round yet.")
    return rounds


def _plain(value: Any) -> Any:
    """Return a value with numbers that JSON lacks (NaN, infinity) as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
