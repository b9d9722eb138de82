"""Read a file of JSON lines while it grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flower_ist.runlog import RunLogError


class LineFollower:
    """Collect a file's whole lines; what is there already is not read twice.

    A line without its line break is still being written and is left for later. When the file was
    cut or replaced, as a resumed run does with its log, it is read anew from its beginning.

    Args:
        file: it may not exist yet.
        needs: a key that every line must have; if empty, lines that are no JSON object are skipped.
    """

    def __init__(self, file: Path, needs: str = "") -> None:
        self.file = file
        self.lines: list[dict[str, Any]] = []
        self._needs = needs
        self._read = 0
        self._last = b""

    def poll(self) -> bool:
        """Read what is new and return whether ``lines`` changed.

        Raises:
            RunLogError: the file cannot be read, or a whole line lacks what it needs.
        """
        try:
            with self.file.open("rb") as file:
                file.seek(self._read - len(self._last))
                # The last line read must still be where it was: a cut may have been followed by
                # more than it took away.
                cut = file.read(len(self._last)) != self._last
                if cut:
                    self._read, self._last = 0, b""
                    file.seek(0)
                added = file.read()
        except FileNotFoundError:
            return False
        except OSError as err:
            raise RunLogError(f"{self.file} cannot be read: {err}.") from err
        if cut:
            self.lines = []
        whole, line_break, _ = added.rpartition(b"\n")
        if not line_break:
            return cut
        texts = whole.split(b"\n")
        found = [self._object(text) for text in texts]
        self.lines.extend(line for line in found if line is not None)
        self._last = texts[-1] + b"\n"
        self._read += len(whole) + 1
        return True

    def take(self) -> list[dict[str, Any]]:
        """Return ``lines`` and forget them: a server need not hold its whole log in memory."""
        taken, self.lines = self.lines, []
        return taken

    def _object(self, text: bytes) -> dict[str, Any] | None:
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if isinstance(content, dict) and (not self._needs or self._needs in content):
            return content
        if self._needs:
            raise RunLogError(f"{self.file} has a damaged line, which begins with {text[:60]!r}.")
        return None
