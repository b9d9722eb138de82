"""MLflow: a run log as an MLflow run, at the server that ``MLFLOW_TRACKING_URI`` names."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flower_ist.runs.trackers.scalars import run_key, scalars
from flower_ist.runs.trackers.track import TrackerError
from flower_ist.runs.watch.follow import RunFollower

KEY_TAG = "flower_ist_run"
_MOST_METRICS = 1000  # MLflow's limit of one batch
_MOST_PARAMS = 100


class MlflowTracker:
    """Send each round once, as the step of its number.

    MLflow itself is asked which rounds it has: the run is found again by a tag, and its metric
    ``round``, sent after all others of a round, is the last whole one.

    Args:
        run: with at least one round.
        experiment: is created if there is none of the name.
        per_client: send the bytes of each client too.

    Raises:
        TrackerError: MLflow refuses.
    """

    def __init__(self, run: RunFollower, experiment: str, per_client: bool = False) -> None:
        from mlflow.tracking import MlflowClient

        self._per_client = per_client
        with _refusals():
            self._client = MlflowClient()
            self._run_id = self._find(run, experiment)
            last = self._client.get_run(self._run_id).data.metrics.get("round")
        self._next = 0 if last is None else int(last) + 1

    def sync(self, rounds: Sequence[dict[str, Any]]) -> int:
        """Send the rounds after the last one that MLflow has.

        Raises:
            TrackerError: MLflow refuses.
        """
        from mlflow.entities import Metric

        new = 0
        for step, found in scalars(rounds, self._per_client):
            if step < self._next:
                continue
            now = int(1000 * time.time())
            metrics = [Metric(_allowed(tag), value, now, step) for tag, value in found.items()]
            metrics.append(Metric("round", step, now, step))
            with _refusals():
                for start in range(0, len(metrics), _MOST_METRICS):
                    batch = metrics[start : start + _MOST_METRICS]
                    self._client.log_batch(self._run_id, metrics=batch)
            self._next = step + 1
            new += 1
        return new

    def close(self) -> None:
        """Mark the MLflow run as finished; more can be sent later all the same."""
        with _refusals():
            self._client.set_terminated(self._run_id)

    def _find(self, run: RunFollower, name: str) -> str:
        """Return the id of this run's MLflow run; make it if there is none."""
        from mlflow.entities import Param

        key = run_key(run.rounds)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else None
        where = number or (experiment.experiment_id if experiment else "")
        found = self._client.search_runs([where], f"tags.{KEY_TAG} = '{key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        made = self._client.create_run(where, run_name=run.name, tags={KEY_TAG: key})
        params = [Param(setting, str(value)) for setting, value in run.settings.items()]
        for start in range(0, len(params), _MOST_PARAMS):
            batch = params[start : start + _MOST_PARAMS]
            self._client.log_batch(made.info.run_id, params=batch)
        return str(made.info.run_id)


def _allowed(tag: str) -> str:
    """Return a metric's name with what MLflow forbids in it, in clients' names, as ``_``."""
    return re.sub(r"[^\w\-. /]", "_", tag, flags=re.ASCII)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what MLflow raises into one sentence."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as err:
        text = " ".join(str(err).split())[:300].rstrip(".")
        raise TrackerError(
            f"MLflow cannot be used ({text}): check MLFLOW_TRACKING_URI and the server there."
        ) from err
