"""Follow the files of a run while another process writes them: whole lines only, each once."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

from flower_ist.runs.log import RUN_LOG, RunLogError
from flower_ist.runs.watch.json_lines import LineFollower

_SETTINGS_FILE = "settings.json"


class State(StrEnum):
    """What a run is doing, as far as its folder tells."""

    WAITING = "waiting for its first round"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class RunFollower:
    """A run's folder, read again at each :meth:`poll`.

    Attributes:
        folder: of the run.
        rounds: the lines of the run log that are whole so far.

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
        self._log = LineFollower(run / RUN_LOG)
        self._settings: dict[str, Any] = {}

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The rounds so far, in order."""
        return self._log.lines

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.folder.absolute().name

    @property
    def settings(self) -> dict[str, Any]:
        """The run's settings; before the first line those of settings.json, if it is there."""
        return self._settings or (self.rounds[-1].get("settings") or {} if self.rounds else {})

    @property
    def total_rounds(self) -> int | None:
        """The round that is the run's last; None if nothing tells."""
        total = self.settings.get("num-rounds")
        return total if isinstance(total, int) else None

    def poll(self) -> bool:
        """Read what is new; return whether the run log changed.

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
        """Return the seconds since the run log was written to.

        Args:
            now: seconds since 1970.
        """
        try:
            return max(0.0, now - (self.folder / RUN_LOG).stat().st_mtime)
        except OSError:
            return 0.0

    def state(self) -> tuple[State, str]:
        """Return what the run is doing and, if it failed, why.

        A run that was killed, or ended by an error between two rounds, tells nothing: it is RUNNING
        until it is resumed and ends.
        """
        if not self.rounds:
            return State.WAITING, ""
        last = self.rounds[-1]
        if "error" in last:
            return State.FAILED, str(last["error"])
        # A round in which nobody brought anything ends the run, though its line is whole.
        asked = last.get("clients_selected", 0)
        if 0 < asked <= last.get("clients_failed", 0):
            return State.FAILED, f"none of {asked} clients brought anything"
        finished = last["round"] == self.total_rounds
        return (State.FINISHED if finished else State.RUNNING), ""
