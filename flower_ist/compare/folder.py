"""The folder of a comparison: its plan, its runs, and which of them are done.

OUT/plan.json                       what is compared
OUT/choices.json                    the settings that the sweep chose
OUT/runs/NAME/settings.json         the run config, written before the run starts
OUT/runs/NAME/run.jsonl             the run log
OUT/runs/NAME/output.txt            what the run's process printed
OUT/runs/NAME/done.json             is there if and only if the run is complete
OUT/runs/NAME/failed.txt            one sentence, if it failed
OUT/pooled/                         all clients' tokens in one shard, for ``central``
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flower_ist.compare.options import extended
from flower_ist.compare.plan import CENTRAL, Plan, PlanError, Run, value_text
from flower_ist.files import is_unfinished, make_folder, remove_unfinished, write_file

PLAN_FILE = "plan.json"
SETTINGS_FILE = "settings.json"
DONE_FILE = "done.json"
FAILED_FILE = "failed.txt"
OUTPUT_FILE = "output.txt"
POOLED = "pooled"
_LOCK_FILE = ".lock"
_LOCK_SECONDS = 30.0
_NODE_SECONDS = 300.0


class ComparisonFolder:
    """Where a comparison lives. Every file appears whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second comparison.

        A comparison takes the lock for itself, then shares it with its workers
        (:func:`share_lock`): the folder stays locked until the last worker of a killed comparison
        has ended too, which takes a moment.

        Raises:
            PlanError: the folder holds something else, cannot be written, or another comparison
                writes to it.
        """
        try:
            self._refuse_foreign()
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as err:
            raise PlanError(f"{self.path} cannot be written: {err}.") from err
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Not one step: whoever comes between has the lock, and this one fails.
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    break
                if time.monotonic() > deadline:
                    raise PlanError(
                        f"Another comparison is writing to {self.path}: wait until it is over, "
                        "or choose another folder."
                    )
                time.sleep(0.2)
            remove_unfinished(self.path)
            yield
        finally:
            os.close(lock)

    def _refuse_foreign(self) -> None:
        if not self.path.exists() or (self.path / PLAN_FILE).exists():
            return
        # A comparison that was ended before it had a plan leaves its lock, and half a plan.
        if not self.path.is_dir() or not all(
            entry.name == _LOCK_FILE or is_unfinished(entry) for entry in self.path.iterdir()
        ):
            raise PlanError(
                f"{self.path} is not a comparison's folder: choose another one, or a new name."
            )

    def adopt(self, plan: Plan) -> Plan:
        """Store a plan, or extend the one that is there, and return what is stored.

        Where no run is finished yet, there is nothing to extend: the plan takes the other's place.

        Raises:
            PlanError: the folder holds a plan that cannot be extended.
        """
        file = self.path / PLAN_FILE
        if any(self.path.glob(f"runs/*/{DONE_FILE}")):
            plan = extended(read_plan(self.path), plan)
        elif file.exists() and file.read_bytes() != plan.to_json().encode():
            for name in ("runs", POOLED):
                shutil.rmtree(self.path / name, ignore_errors=True)
        write_file(file, plan.to_json())
        return plan

    def run_folder(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.path / "runs" / run.name

    def config(self, run: Run, plan: Plan) -> dict[str, Any]:
        """Return the complete run config of a run.

        Raises:
            PlanError: the app does not know a setting.
        """
        base, changes = plan.usage.config, run.config(plan)
        if unknown := sorted(changes.keys() - base.keys()):
            raise PlanError(
                f"The app has no setting {unknown[0]!r}: its run config has {', '.join(base)}."
            )
        pooled = run.strategy == CENTRAL and plan.data
        config = {
            **base,
            **{key: _like(base[key], value) for key, value in changes.items()},
            "data-dir": str(self.path / POOLED) if pooled else plan.data,
            "output-dir": str(self.run_folder(run)),
        }
        if "keep-checkpoints" in config:
            # A run that was cut short is begun again, so nothing would read them.
            config["keep-checkpoints"] = 0
        # In this process every client is there from the start; Flower's and Ray's have to start.
        config["node-timeout"] = 0.0 if plan.engine == "inprocess" else _NODE_SECONDS
        return config

    def is_done(self, run: Run) -> bool:
        """Return whether a run is complete; it is then never repeated."""
        return (self.run_folder(run) / DONE_FILE).exists()

    def failure(self, run: Run) -> str | None:
        """Return the sentence that a failed run left."""
        try:
            return (self.run_folder(run) / FAILED_FILE).read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def prepare(self, run: Run, config: Mapping[str, Any]) -> Path:
        """Make a run's folder anew, without anything of an attempt that did not finish."""
        folder = self.run_folder(run)
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        write_file(folder / SETTINGS_FILE, json.dumps(config, indent=2) + "\n")
        return folder


def share_lock(folder: Path) -> None:
    """Keep a comparison's folder locked for as long as this process lives.

    Raises:
        BlockingIOError: another comparison has the folder already.
    """
    lock = os.open(folder / _LOCK_FILE, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


def read_plan(folder: Path) -> Plan:
    """Read the plan of a comparison's folder.

    Raises:
        PlanError: there is none.
    """
    file = folder / PLAN_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise PlanError(f"There is no comparison in {folder.absolute()}: {err}.") from err
    return Plan.from_json(text, str(file))


def _like(own: Any, value: Any) -> Any:
    """Return a value as the app's own setting is typed: ``1`` for a decimal setting is 1.0."""
    if isinstance(own, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(own, str) and not isinstance(value, str):
        return value_text(value)
    return value
