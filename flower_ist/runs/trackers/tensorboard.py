"""TensorBoard event files from a run log.

The file is made from the log and nothing else: each time anew under a temporary name that then
replaces the file before, so that no step is ever in it twice; rounds that follow are appended.

Numbers are float32, in the tensor form of TensorFlow 2's scalar summaries: TensorBoard's default
loader shows nothing of a float64. So a count of bytes above 2^24 is rounded to 7 digits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from flower_ist.runs.log import RUN_LOG
from flower_ist.runs.trackers.scalars import scalars

# TensorBoard takes a file for its own if the name has "tfevents" in it.
EVENT_FILE = "events.out.tfevents.0.flower-ist"


class TensorBoardTracker:
    """Keep ``RUN/events.out.tfevents.0.flower-ist`` equal to the run log.

    Args:
        folder: of the run; TensorBoard shows the run under the folder's name.
        per_client: write the bytes of each client too.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, per_client: bool = False) -> None:
        import tensorboard  # noqa: F401 - to learn at once, not at the first round, that it lacks

        self._folder = folder
        self._per_client = per_client
        self._written: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None
        self._began = 0.0

    def sync(self, rounds: Sequence[dict[str, Any]]) -> int:
        """Append the rounds that are new; write all anew if the log was cut.

        Raises:
            OSError: the file cannot be written.
        """
        known = len(self._written)
        if self._file is not None and list(rounds[:known]) == self._written:
            if len(rounds) == known:
                return 0
            self._append(self._file, rounds, known)
        else:
            known = 0
            self._write_anew(rounds)
        self._written = list(rounds)
        return len(rounds) - known

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write_anew(self, rounds: Sequence[dict[str, Any]]) -> None:
        self.close()
        # The log has no clock but its last change: rounds lie before it as far as they took long.
        changed = (self._folder / RUN_LOG).stat().st_mtime
        self._began = changed - sum(map(_seconds, rounds))
        temporary = self._folder / f".{EVENT_FILE}.tmp"
        self._file = temporary.open("wb")
        self._append(self._file, rounds, 0)
        os.replace(temporary, self._folder / EVENT_FILE)

    def _append(self, file: IO[bytes], rounds: Sequence[dict[str, Any]], known: int) -> None:
        """Append the rounds after the first ``known``; before the first, the file's head."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        writer = RecordWriter(file)
        ended = self._began
        if not known:
            head = Event(wall_time=ended, file_version="brain.Event:2")
            writer.write(head.SerializeToString())
        for number, (step, found) in enumerate(scalars(rounds, self._per_client)):
            ended += _seconds(rounds[number])
            if number >= known:
                event = Event(wall_time=ended, step=step, summary=_summary(found))
                writer.write(event.SerializeToString())
        writer.flush()


def _summary(found: dict[str, int | float]) -> Any:
    """Return a round's numbers as a ``Summary`` message."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    return Summary(
        value=[
            Summary.Value(
                tag=tag,
                metadata=create_summary_metadata(None, None),
                tensor=make_tensor_proto(np.float32(value)),
            )
            for tag, value in found.items()
        ]
    )


def _seconds(line: dict[str, Any]) -> float:
    return float(sum(line.get("seconds", {}).values()))
