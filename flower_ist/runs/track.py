"""Send a run's numbers to TensorBoard, Weights & Biases or MLflow.

Trackers read only what the server has written: the server needs no tracker library, a failing
tracker cannot stop a run, and old runs can be sent too.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flower_ist.errors import FlowerIstError
from flower_ist.files import append_file, write_file
from flower_ist.runs.log import RUN_LOG, RunLogError
from flower_ist.runs.watch.follow import RunFollower, State

Round = tuple[int, dict[str, int | float]]  # its number, and its numbers by name

# TensorBoard recognizes its files by "tfevents" in the name.
EVENT_FILE = "events.out.tfevents.0.flower-ist"
# Which rounds went to which W&B project: in offline mode W&B cannot say.
SENT_FILE = ".wandb-sent.json"
KEY_TAG = "flower_ist_run"
# These are not measurements: the x axis, and what identifies the run.
_LEFT_OUT = {"round", "seed", "settings", "resumed_after"}
_MLFLOW = ("MLflow", "check MLFLOW_TRACKING_URI and its server")
_POLL_SECONDS = 2.0
_MLFLOW_BATCH = 1000  # the most metrics that it takes at once


class TrackerError(FlowerIstError):
    """A tracker cannot be used."""


def track(
    run: Path,
    to: str,
    *,
    follow: bool = False,
    project: str = "flower-ist",
    per_client: bool = False,
    tell: Callable[[str], object] = print,
) -> int:
    """Send a run's rounds to a tracker; with ``follow`` continue until the run has ended.

    Args:
        run: the run's folder, or the run.jsonl in it.
        to: the tracker's name in :data:`TRACKERS`.
        follow: wait for further rounds. For a run that was killed, wait until it is resumed.
        project: W&B's project, or MLflow's experiment.
        per_client: send the bytes of each client too.
        tell: called with a sentence when something was sent.

    Returns:
        The number of rounds that were sent.

    Raises:
        TrackerError: there is no such tracker, its library is not installed, or it refuses.
        RunLogError: there is no run log, or it is damaged.
    """
    if to not in TRACKERS:
        raise TrackerError(f"There is no tracker {to!r}: choose from {', '.join(TRACKERS)}.")
    following = RunFollower(run)
    tracker: Tracker | None = None
    sent = 0
    try:
        while True:
            following.poll()
            state, _ = following.state()
            # A round that an exception interrupted is replaced when the run is resumed.
            lines = [line for line in following.rounds if "error" not in line]
            if lines:
                tracker = tracker or TRACKERS[to](following, project)
                new = tracker.send(list(scalars(lines, per_client)))
                sent += new
                if new:
                    tell(f"Sent {new} rounds to {to}, up to round {lines[-1]['round']}.")
            if state in (State.FINISHED, State.FAILED) or not follow:
                break
            time.sleep(_POLL_SECONDS)
    except ModuleNotFoundError as err:
        raise TrackerError(f"{err.name} is not installed: pip install 'flower-ist[{to}]'.") from err
    finally:
        if tracker is not None:
            tracker.close()
    if tracker is None:
        raise RunLogError(f"{following.folder} holds no round yet: wait for one with --follow.")
    return sent


def scalars(lines: Sequence[Mapping[str, Any]], per_client: bool = False) -> Iterator[Round]:
    """Yield each round's numbers, exactly as the log has them.

    Nested fields are joined with ``/``: ``seconds/train``, ``message_types/query/wire_bytes_up``.
    ``total/wire_bytes_down`` and ``total/wire_bytes_up`` are the sums up to the end of the round.

    Args:
        lines: of a run log, from the first on.
        per_client: include ``clients/NAME/...``.
    """
    left_out = _LEFT_OUT if per_client else _LEFT_OUT | {"clients"}
    totals = {"total/wire_bytes_down": 0, "total/wire_bytes_up": 0}
    for line in lines:
        for name in totals:
            totals[name] += line.get(name.removeprefix("total/"), 0)
        yield line["round"], dict(_flat({k: line[k] for k in line if k not in left_out})) | totals


def run_key(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return 32 characters that identify a run, even if its folder is moved or it is resumed.

    They are from the SHA-256 of the log's first line, which holds all settings and timings.
    """
    return hashlib.sha256(json.dumps(lines[0], sort_keys=True).encode()).hexdigest()[:32]


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int | float]]:
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", value


class Tracker(ABC):
    """A run in a tracker, where each round is one step."""

    _next = 0

    def send(self, rounds: Sequence[Round]) -> int:
        """Log the new rounds of a run, and return how many there were."""
        new = [(step, found) for step, found in rounds if step >= self._next]
        for step, found in new:
            self._log(step, found)
            self._next = step + 1
        return len(new)

    @abstractmethod
    def _log(self, step: int, found: Mapping[str, int | float]) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Finish, and make sure that everything has arrived."""


class _TensorBoard(Tracker):
    """Keep the event file in the run's folder equal to the log, with no step twice.

    New rounds are appended, so that an open TensorBoard shows them. If the log was truncated, a new
    file replaces the old one. Numbers are float32 in the tensor form of TensorFlow 2's summaries,
    the only one that the default loader shows: a count above 2^24 keeps 7 digits.
    """

    def __init__(self, run: RunFollower, project: str) -> None:
        import tensorboard  # noqa: F401 - if it is missing, say so before the first round

        self._folder = run.folder
        self._sent: list[Round] | None = None
        self._events = io.BytesIO()
        self._clock = 0.0

    def send(self, rounds: Sequence[Round]) -> int:
        from tensorboard.compat.proto.event_pb2 import Event

        anew = self._sent is None or rounds[: len(self._sent)] != self._sent
        self._events = io.BytesIO()
        if anew:
            # The log's only clock time is its last change: round times are counted back from it.
            took = sum(_seconds(found) for _, found in rounds)
            self._clock = (self._folder / RUN_LOG).stat().st_mtime - took
            self._write(Event(wall_time=self._clock, file_version="brain.Event:2"))
            self._next = 0
        new = super().send(rounds)
        write = write_file if anew else append_file
        write(self._folder / EVENT_FILE, self._events.getvalue())
        self._sent = list(rounds)
        return new

    def close(self) -> None:
        """Do nothing: the file is open only while it is written."""

    def _log(self, step: int, found: Mapping[str, int | float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.scalar.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        metadata = create_summary_metadata(None, None)
        tensors = {tag: make_tensor_proto(value, "float32") for tag, value in found.items()}
        values = [Summary.Value(tag=t, metadata=metadata, tensor=v) for t, v in tensors.items()]
        self._clock += _seconds(found)
        self._write(Event(wall_time=self._clock, step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self._events).write(event.SerializeToString())


def _seconds(found: Mapping[str, int | float]) -> float:
    return float(sum(value for tag, value in found.items() if tag.startswith("seconds/")))


class _Wandb(Tracker):
    """W&B. A kill between a round and its note may log it again; online, W&B drops the repeat."""

    def __init__(self, run: RunFollower, project: str) -> None:
        import wandb

        self._file = run.folder / SENT_FILE
        key = run_key(run.rounds)
        self._key = f"{project}/{key}"
        options = {"project": project, "id": key, "name": run.name, "config": run.settings}
        with _refusals("W&B", "log in with 'wandb login' or set WANDB_MODE=offline"):
            self._run = wandb.init(**options, dir=str(run.folder), resume="allow")
        # W&B's own step is the next one that it expects.
        self._next = max(self._noted().get(self._key, -1) + 1, int(self._run.step or 0))

    def close(self) -> None:
        self._run.finish()

    def _log(self, step: int, found: Mapping[str, int | float]) -> None:
        self._run.log(found, step=step)
        write_file(self._file, json.dumps(self._noted() | {self._key: step}))

    def _noted(self) -> dict[str, int]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError):  # nothing was sent from here yet
            return {}


class _Mlflow(Tracker):
    """MLflow, asked what it already has: a tag finds the run, its metric ``round`` the round."""

    def __init__(self, run: RunFollower, project: str) -> None:
        import mlflow

        key = run_key(run.rounds)
        with _refusals(*_MLFLOW):
            mlflow.set_experiment(project)
            query = {"filter_string": f"tags.{KEY_TAG} = '{key}'", "max_results": 1}
            if found := mlflow.search_runs(**query, output_format="list"):
                mlflow.start_run(run_id=found[0].info.run_id)
                self._next = int(found[0].data.metrics.get("round", -1)) + 1
            else:
                mlflow.start_run(run_name=run.name, tags={KEY_TAG: key})
                mlflow.log_params(run.settings)

    def close(self) -> None:
        import mlflow

        with _refusals(*_MLFLOW):
            mlflow.end_run()

    def _log(self, step: int, found: Mapping[str, int | float]) -> None:
        import mlflow

        # MLflow allows few characters in a name; clients' names may have others.
        named = {re.sub(r"[^\w\-. /]", "_", tag, flags=re.ASCII): v for tag, v in found.items()}
        metrics = [*named.items(), ("round", step)]  # last, so that it marks a whole round
        with _refusals(*_MLFLOW):
            for start in range(0, len(metrics), _MLFLOW_BATCH):
                mlflow.log_metrics(dict(metrics[start : start + _MLFLOW_BATCH]), step=step)


TRACKERS: Mapping[str, Callable[[RunFollower, str], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}
"""The available trackers; the extras have the same names."""


@contextmanager
def _refusals(name: str, remedy: str) -> Iterator[None]:
    """Turn whatever a tracker's library raises, including network errors, into one sentence."""
    try:
        yield
    except Exception as err:
        reason = " ".join(str(err).split())[:300].rstrip(".")
        raise TrackerError(f"{name} cannot be used ({reason}): {remedy}.") from err
