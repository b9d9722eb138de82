"""What tracked dicts hold, in a file to which each round appends no more than it has changed.

``checkpoints/changes-000003.jsonl`` begins with all entries after round 3, the first round that a
process has saved. Each later round appends a line with the entries that it wrote. A checkpoint has
name, length and hash of the file as it was then, so what follows is not of it, whole or torn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flower_ist.files import append_file, write_file
from flower_ist.runs.sealed import UnreadableError
from flower_ist.tracked import TrackedDict


class Changes:
    """Write the changes of one run.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder
        self._size = 0
        self._hash = hashlib.sha256()
        # By name: what is in the file, up to so many writes.
        self._seen: dict[str, tuple[TrackedDict[Any] | None, int]] = {}

    def write(self, server_round: int, tracked: Mapping[str, TrackedDict[Any]]) -> dict[str, Any]:
        """Append what has changed, or begin another file with all of it; return what to read.

        Args:
            server_round: the round that is over.
            tracked: name -> dict with JSON values. If one is another object than before, all are
                written.

        Raises:
            NotWrittenError: it cannot be written; what was written before can be read.
        """
        # If this fails, the next round begins another file: it knows of nothing that is written.
        seen, self._seen = self._seen, {}
        same = all(seen.get(name, (None,))[0] is tracked[name] for name in tracked)
        begins = not same or not self._is_whole()
        if begins:
            seen = dict.fromkeys(tracked, (None, 0))
            self._file = self._folder / f"changes-{server_round:06d}.jsonl"
            self._size, self._hash = 0, hashlib.sha256()
        line = {name: entries.since(seen[name][1]) for name, entries in tracked.items()}
        content = (json.dumps(line) + "\n").encode()
        (write_file if begins else append_file)(self._file, content)
        if begins:  # what follows is of rounds that are done again
            self._remove(other for other in self._files() if other > self._file)
        self._size += len(content)
        self._hash.update(content)
        self._seen = {name: (entries, entries.writes) for name, entries in tracked.items()}
        return {"file": self._file.name, "bytes": self._size, "sha256": self._hash.hexdigest()}

    def remove_before(self, server_round: int) -> None:
        """Remove the files that no round from this one on was written to."""
        first = self._folder / f"changes-{server_round:06d}.jsonl"
        self._remove([file for file in self._files() if file <= first][:-1])

    def _is_whole(self) -> bool:
        try:
            return self._file.stat().st_size == self._size
        except OSError:
            return False

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("changes-*.jsonl"))

    @staticmethod
    def _remove(files: Iterable[Path]) -> None:
        for file in files:
            with suppress(OSError):
                file.unlink()


def read_changes(folder: Path, written: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of all dicts, from what :meth:`Changes.write` returned.

    Raises:
        UnreadableError: the file cannot be read, or differs from what was written.
    """
    file = folder / written["file"]
    try:
        with file.open("rb") as opened:
            content = opened.read(written["bytes"])
    except OSError as err:
        raise UnreadableError(f"{file.name} cannot be read ({err.strerror})") from err
    if hashlib.sha256(content).hexdigest() != written["sha256"]:
        raise UnreadableError(f"{file.name} does not match its hash")
    found: dict[str, dict[str, Any]] = {}
    for line in content.splitlines():
        for name, entries in json.loads(line).items():
            found.setdefault(name, {}).update(entries)
    return found
