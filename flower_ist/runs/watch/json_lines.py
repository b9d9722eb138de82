"""Read a run log while it grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flower_ist.runs.log import RunLogError


class LineFollower:
    """Collect a run log's whole lines; what is there already is not read twice.

    A line without its line break is still being written and is left for later. When the file was
    cut or replaced, as a resumed run does, it is read anew from its beginning.

    Args:
        file: it may not exist yet.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[dict[str, Any]] = []
        self._read = 0
        self._last = b""

    def poll(self) -> bool:
        """Read what is new and return whether ``lines`` changed.

        Raises:
            RunLogError: the file cannot be read, or a whole line is not a round.
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
        self.lines.extend([self._round(text) for text in texts])
        self._last = texts[-1] + b"\n"
        self._read += len(whole) + 1
        return True

    def _round(self, text: bytes) -> dict[str, Any]:
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if isinstance(content, dict) and "round" in content:
            return content
        raise RunLogError(f"{self.file} has a damaged line, which begins with {text[:60]!r}.")
