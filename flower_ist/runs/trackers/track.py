"""Follow a run log and keep a tracker in step with it.

Trackers read what the server has written and nothing else: the server needs no tracker's library,
a tracker that fails cannot stop a run, and runs of last month can be sent too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from flower_ist.errors import FlowerIstError
from flower_ist.runs.log import RunLogError
from flower_ist.runs.watch.follow import RunFollower, State


class TrackerError(FlowerIstError):
    """A tracker cannot be used."""


class Destination(StrEnum):
    """Where numbers can go; the names are those of the extras too."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


class Tracker(Protocol):
    """What each tracker's module has."""

    def sync(self, rounds: Sequence[dict[str, Any]]) -> int:
        """Bring the tracker up to these rounds, all of the log; return how many were sent."""

    def close(self) -> None:
        """Send what is left."""


def track(
    run: Path,
    to: str,
    *,
    follow: bool = False,
    project: str = "flower-ist",
    per_client: bool = False,
    every: float = 2.0,
    tell: Callable[[str], object] = print,
) -> int:
    """Send a run's rounds to a tracker, and go on until the run has ended if ``follow``.

    Args:
        run: the run's folder, or the run.jsonl in it.
        to: the tracker, one of :class:`Destination`.
        follow: wait for further rounds. A run that was killed is waited for until it is resumed.
        project: W&B's project, or MLflow's experiment.
        per_client: send the bytes of each client too.
        every: seconds between two looks at the log.
        tell: is called with a sentence when something was sent.

    Returns:
        How many rounds were sent.

    Raises:
        TrackerError: there is no such tracker, its extra is not installed, or the tracker refuses.
        RunLogError: there is no run log, or it is damaged.
    """
    if to not in set(Destination):
        raise TrackerError(f"There is no tracker {to!r}: choose from {', '.join(Destination)}.")
    destination = Destination(to)
    following = RunFollower(run)
    tracker: Tracker | None = None
    sent = 0
    try:
        while True:
            following.poll()
            state, _ = following.state()
            # The line of a round that an exception cut short is replaced when the run is resumed.
            rounds = [line for line in following.rounds if "error" not in line]
            if rounds:
                tracker = tracker or _open(destination, following, project, per_client)
                new = tracker.sync(rounds)
                sent += new
                if new:
                    tell(f"{new} rounds up to {rounds[-1]['round']} sent to {destination.value}.")
            if state in (State.FINISHED, State.FAILED) or not follow:
                break
            time.sleep(every)
    finally:
        if tracker is not None:
            tracker.close()
    if tracker is None:
        raise RunLogError(f"{following.folder} holds no round yet: wait for one with --follow.")
    return sent


def _open(to: Destination, run: RunFollower, project: str, per_client: bool) -> Tracker:
    try:
        match to:
            case Destination.TENSORBOARD:
                from flower_ist.runs.trackers.tensorboard import TensorBoardTracker

                return TensorBoardTracker(run.folder, per_client)
            case Destination.WANDB:
                from flower_ist.runs.trackers.wandb import WandbTracker

                return WandbTracker(run, project, per_client)
            case Destination.MLFLOW:
                from flower_ist.runs.trackers.mlflow import MlflowTracker

                return MlflowTracker(run, project, per_client)
    except ModuleNotFoundError as err:
        raise TrackerError(
            f"{err.name} is not installed: in the checkout, pip install -e '.[{to.value}]'."
        ) from err
