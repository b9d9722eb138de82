"""The server's log as JSON lines: ``events.jsonl`` beside the run log, for machines to read.

Each line has ``time`` (UTC), ``level`` and ``event``; which other fields there are follows from the
event (docs/watching.md). A round's end and its failed clients are those of the run log, so they are
there for any strategy; warnings and errors are those of the logger ``flwr``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flower_ist.json_lines import LineFollower
from flower_ist.runlog import RUN_LOG

EVENT_LOG = "events.jsonl"

_OF_ROUND = (
    *("accuracy", "loss", "wire_bytes_down", "wire_bytes_up", "coverage"),
    *("clients_selected", "clients_replied", "clients_failed"),
)
_EVERY_RECORD_HAS = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}


@contextmanager
def event_log(folder: Path) -> Iterator[EventLog]:
    """Write the events of a run into its folder while the context lasts.

    Begins with ``run-started`` or ``run-resumed`` and ends with ``run-finished`` or ``run-failed``.
    Other code adds events of its own with ``logging.getLogger("flwr").info(text, extra={"event":
    "name", ...})`` or with :meth:`EventLog.write`.
    """
    logger = logging.getLogger("flwr")
    events = EventLog(folder)
    logger.addHandler(events)
    try:
        if events.last_round is None:
            events.write("run-started")
        else:
            events.write("run-resumed", after_round=events.last_round)
        yield events
    except BaseException as err:
        events.write("run-failed", "ERROR", error=type(err).__name__, reason=str(err))
        raise
    else:
        events.write("run-finished")
    finally:
        logger.removeHandler(events)
        events.close()


class EventLog(logging.Handler):
    """A logging handler that appends one JSON line an event.

    Whatever goes wrong in it is said once on stderr and never reaches the run.

    Attributes:
        last_round: the last round that is over, None if there is none.

    Args:
        folder: of the run; what its run log holds already is not told again.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / EVENT_LOG
        self._rounds = LineFollower(folder / RUN_LOG, needs="round")
        self.last_round: int | None = None
        self._complained = False
        # A kill or a full disk may have left half a line: the next one must not continue it.
        self._torn = True
        with self._harmless():
            self._new_rounds()

    def write(self, event: str, level: str = "INFO", **fields: Any) -> None:
        """Append an event after those of the rounds that have ended meanwhile."""
        with self._harmless():
            self._tell_rounds()
            self._append(event, level, fields)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record that names an event, or that is a warning or worse.

        The rest of what Flower logs is for people: tables and records over many lines.
        """
        with self._harmless():
            text = record.getMessage().strip()
            # Flower has no hook where a round begins, but it logs a line. Its own number counts
            # anew in a resumed run.
            if text.startswith("[ROUND "):
                self._tell_rounds()
                next_round = 1 if self.last_round is None else self.last_round + 1
                self._append("round-started", record.levelname, {"round": next_round})
            elif record.levelno >= logging.WARNING or hasattr(record, "event"):
                extra = {k: v for k, v in vars(record).items() if k not in _EVERY_RECORD_HAS}
                event = str(extra.pop("event", "message"))
                if record.exc_info and record.exc_info[1] is not None:
                    extra["error"] = repr(record.exc_info[1])
                self.write(event, record.levelname, text=text, **extra)

    def _tell_rounds(self) -> None:
        for line in self._new_rounds():
            for client, reason in line.get("failures", {}).items():
                failed = {"round": line["round"], "client": client, "reason": reason}
                self._append("client-failed", "WARNING", failed)
            found = {"round": line["round"], **{key: line.get(key) for key in _OF_ROUND}}
            self._append("round-ended", "INFO", found)

    def _new_rounds(self) -> list[dict[str, Any]]:
        self._rounds.poll()
        lines = self._rounds.take()
        if lines:
            self.last_round = lines[-1]["round"]
        return lines

    def _append(self, event: str, level: str, fields: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "level": level, "event": event, **fields}
        text = json.dumps(line, default=str) + "\n"
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if self._torn:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    text = "\n" + text
            content = text.encode("utf-8", "backslashreplace")
            self._torn = True
            self._torn = os.write(descriptor, content) < len(content)
        finally:
            os.close(descriptor)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as err:  # logging must never stop a run, whatever is wrong with it
            if not self._complained:
                self._complained = True
                sys.stderr.write(f"Events are missing in {self._file}: {err}\n")
