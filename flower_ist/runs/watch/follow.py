"""Follow the files of a run while another process writes them: only whole lines, each once."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

from flower_ist.runs.log import RUN_LOG, RunLogError

_SETTINGS_FILE = "settings.json"


class State(StrEnum):
    """What a run is doing, as far as its folder shows."""

    WAITING = "waiting for its first round"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class LineFollower:
    """Collect a run log's whole lines without reading any twice.

    A line without a line break is still being written and is left for later. If the file was
    truncated or replaced, as by a resumed run, it is read again from the beginning.

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
                # The last line read must still be where it was: after a truncation, more may have
                # been written than was removed.
                file.seek(self._read - len(self._last))
                cut = file.read(len(self._last)) != self._last
                if cut:
                    file.seek(0)
                added = file.read()
        except FileNotFoundError:
            return False
        except OSError as err:
            raise RunLogError(f"{self.file} cannot be read: {err}.") from err
        if cut:
            self.lines, self._read, self._last = [], 0, b""
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


class RunFollower:
    """A run's folder, read again at each :meth:`poll`.

    Args:
        run: the folder, or the run.jsonl in it.

    Raises:
        RunLogError: there is no such folder.
    """

    def __init__(self, run: Path) -> None:
        if run.name == RUN_LOG and run.is_file():
            run = run.parent
        if not run.is_dir():
            raise RunLogError(
                f"There is no run folder at {run}: give the folder that the run writes, its "
                "'output-dir'."
            )
        self.folder = run
        self.name = run.absolute().name
        self._log = LineFollower(run / RUN_LOG)
        self._settings: dict[str, Any] = {}

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The whole lines of the run log so far, in order."""
        return self._log.lines

    @property
    def settings(self) -> dict[str, Any]:
        """The run's settings: those of settings.json or, without it, of the last line."""
        return self._settings or (self.rounds[-1].get("settings") or {} if self.rounds else {})

    @property
    def total_rounds(self) -> int | None:
        """The number of the run's last round; None if unknown."""
        total = self.settings.get("num-rounds")
        return total if isinstance(total, int) else None

    def poll(self) -> bool:
        """Read what is new and return whether the run log changed.

        Raises:
            RunLogError: the run log cannot be read, or a whole line of it is damaged.
        """
        try:
            found = json.loads((self.folder / _SETTINGS_FILE).read_text(encoding="utf-8"))
            self._settings = found if isinstance(found, dict) else {}
        except (OSError, ValueError):  # not there yet; the lines have the settings too
            self._settings = {}
        return self._log.poll()

    def seconds_since_last_line(self, now: float) -> float:
        """Return the seconds from the last change of the run log to ``now``, seconds since 1970."""
        try:
            return max(0.0, now - self._log.file.stat().st_mtime)
        except OSError:
            return 0.0

    def state(self) -> tuple[State, str]:
        """Return what the run is doing and, if it failed or ended early, why.

        A run that was killed, or that failed between two rounds, leaves no sign of it: it counts as
        RUNNING until it is resumed and ends.
        """
        if not self.rounds:
            return State.WAITING, ""
        last = self.rounds[-1]
        if "error" in last:
            return State.FAILED, str(last["error"])
        # A round in which all clients failed ends the run, although its line is whole.
        asked = last.get("clients_selected", 0)
        if 0 < asked <= last.get("clients_failed", 0):
            return State.FAILED, f"none of {asked} clients brought anything"
        finished = last["round"] == self.total_rounds or "stopped" in last
        return (State.FINISHED if finished else State.RUNNING), str(last.get("stopped", ""))
