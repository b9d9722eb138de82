"""Weights & Biases: a run log as a W&B run. ``WANDB_MODE=offline`` works without an account."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from flower_ist.runs.trackers.scalars import run_key, scalars
from flower_ist.runs.trackers.track import TrackerError
from flower_ist.runs.watch.follow import RunFollower

# Which rounds went to which project: in offline mode W&B cannot say.
SENT_FILE = ".wandb-sent.json"


class WandbTracker:
    """Send each round once, as the step of its number.

    A kill between sending a round and writing that down may send this one round again.

    Args:
        run: with at least one round.
        project: W&B's project.
        per_client: send the bytes of each client too.

    Raises:
        TrackerError: W&B refuses, for instance because there is no login.
    """

    def __init__(self, run: RunFollower, project: str, per_client: bool = False) -> None:
        import wandb

        self._file = run.folder / SENT_FILE
        self._per_client = per_client
        key = run_key(run.rounds)
        self._key = f"{project}/{key}"
        try:
            self._run = wandb.init(
                project=project,
                id=key,
                name=run.name,
                config=run.settings,
                dir=str(run.folder),
                resume="allow",
            )
        except Exception as err:  # W&B's errors have no common class but this one
            raise TrackerError(
                f"W&B cannot be used ({' '.join(str(err).split())[:300].rstrip('.')}): log in with "
                "'wandb login' or set WANDB_MODE=offline."
            ) from err
        # W&B's own step is the next one that it expects.
        self._next = max(self._sent().get(self._key, -1) + 1, int(self._run.step or 0))

    def sync(self, rounds: Sequence[dict[str, Any]]) -> int:
        """Send the rounds after the last one that was sent."""
        new = 0
        for step, found in scalars(rounds, self._per_client):
            if step >= self._next:
                self._run.log(found, step=step)
                self._next = step + 1
                new += 1
        if new:
            self._note()
        return new

    def close(self) -> None:
        """Finish the W&B run; it can be gone on with."""
        self._run.finish()

    def _sent(self) -> dict[str, int]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # nothing was sent from here yet
            return {}
        return found if isinstance(found, dict) else {}

    def _note(self) -> None:
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._sent() | {self._key: self._next - 1}))
        os.replace(temporary, self._file)
