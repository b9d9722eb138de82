"""Follow the files of a run while another process writes them: whole lines only, each once."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

from flower_ist.event_log import EVENT_LOG
from flower_ist.json_lines import LineFollower
from flower_ist.runlog import RUN_LOG, RunLogError

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
        self._log = LineFollower(run / RUN_LOG, needs="round")
        self._events = LineFollower(run / EVENT_LOG)
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
        # In this order: once the events say that the run has ended, its last line is there to read.
        self._events.poll()
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

        A run that was killed tells nothing: it is RUNNING until it is resumed and ends.
        """
        last = self.rounds[-1] if self.rounds else {}
        for event in reversed(self._events.lines):
            match event.get("event"):
                case "run-finished":
                    return State.FINISHED, ""
                case "run-failed":
                    return State.FAILED, str(event.get("reason", ""))
                case "run-started" | "run-resumed":
                    break
        else:
            # A run that writes no events: a round that an exception cut short has it in its line.
            if "error" in last:
                return State.FAILED, str(last["error"])
        # Such a round ends the run, though its line is whole.
        nobody = 0 < last.get("clients_selected", 0) <= last.get("clients_failed", 0)
        if last and last["round"] == self.total_rounds and not nobody and "error" not in last:
            return State.FINISHED, ""
        return (State.RUNNING if last else State.WAITING), ""
