"""The folder of a run: new or resumed, locked against a second process, written each round.

It has settings.json, run.jsonl, model.safetensors and the checkpoints.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flower_ist.files import remove_unfinished, rename_file, write_file
from flower_ist.runs.checkpoint import CHECKPOINT_FOLDER, Checkpoint, Checkpoints
from flower_ist.runs.log import RUN_LOG, RunLog, RunLogError, read_run, sole_writer
from flower_ist.strategies.state import strategy_state
from flower_ist.tokens.shard import TokenShard
from server_app.chosen_round import ChosenRound
from server_app.early_stop import EarlyStop
from server_app.identity import RunIdentity
from server_app.settings import Settings, SettingsError

SETTINGS_FILE = "settings.json"
MODEL_FILE = "model.safetensors"
# A round's model until its checkpoint is written: a run that stops before that does it again.
_NEXT_MODEL = "model.next.safetensors"
_log = logging.getLogger("flwr")


class RunFolder:
    """A run's folder, as a context manager. Nothing is written before :meth:`open_log`.

    Attributes:
        path: the folder.
        checkpoint: what the run resumes from; None for a new one.
        identity: settings and data of the run.

    Raises:
        RunLogError: another process writes to the folder, its run has no checkpoint, or it holds
            a run although this is a new one.
        SettingsError: its run was begun with different settings or server data.
    """

    def __init__(self, path: Path, settings: Settings, shard: TokenShard) -> None:
        self.path = path
        self._settings = settings
        self._checkpoints = Checkpoints(path, settings.keep_checkpoints)
        self._held = ExitStack()
        self._goes_on = settings.resume and (path / RUN_LOG).exists()
        self.checkpoint: Checkpoint | None = None
        if not self._goes_on:
            self._refuse_what_is_there()
        with ExitStack() as held:
            if self._goes_on:
                held.enter_context(sole_writer(path))
                self.checkpoint = self._last_checkpoint()
            self.identity = RunIdentity(settings, shard, self.checkpoint)
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        """Use the folder."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the folder."""
        self._held.close()

    @property
    def rounds_done(self) -> int | None:
        """The last completed round, 0 for none; None for a new run."""
        return None if self.checkpoint is None else self.checkpoint.server_round

    def is_finished(self) -> bool:
        """Tell whether no round is left to do, and say so in the log.

        Raises:
            SettingsError: the run is already longer than ``num-rounds``.
        """
        done, asked = self.rounds_done, self._settings.num_rounds
        if done is None:
            return False
        if why := self.early_stop()[1]:
            self._settle()
            _log.info("The run in %s has ended after round %d: %s.", self.path, done, why)
            return True
        if done < asked:
            return False
        if done > asked:
            raise SettingsError(
                f"'num-rounds' is {asked}, but the run in 'output-dir' has {done} rounds already: "
                f"set at least {done}."
            )
        self._settle()
        _log.info(
            "The run in %s is finished, all its %d rounds are in %s: nothing is left to do; for "
            "more rounds raise 'num-rounds'.",
            self.path,
            done,
            RUN_LOG,
        )
        return True

    def chosen_round(self, validation: TokenShard | None) -> ChosenRound | None:
        """Return what chooses the round of the run's model, which knows the rounds so far.

        Args:
            validation: the part of the server's shard by which it does; None: no round is chosen.

        Raises:
            RunLogError: the log cannot be read.
        """
        if validation is None:
            return None
        chosen = ChosenRound(len(validation), self._lines())
        if chosen.number in (-1, _round_of(self.path / MODEL_FILE)):
            return chosen
        _log.warning(
            "%s lacks the model of round %d, which validation had chosen: rounds are compared from "
            "here on.",
            self.path,
            chosen.number,
        )
        return ChosenRound(len(validation))

    def early_stop(self) -> tuple[EarlyStop, str]:
        """Return what ends the run early, which knows the rounds so far, and whether they ended it.

        Returns:
            The rule, and why the run is over after its last completed round, or an empty text.

        Raises:
            RunLogError: the log cannot be read.
        """
        rule, why = EarlyStop(self._settings.target_accuracy, self._settings.patience), ""
        for line in self._lines():
            why = rule.why(line)
        return rule, why

    def _lines(self) -> list[dict[str, Any]]:
        """Return the log's lines of the rounds that are done."""
        done = self.rounds_done
        return [] if done is None else [ln for ln in read_run(self.path) if ln["round"] <= done]

    def open_log(self) -> RunLog:
        """Create the run's log, or open it after the checkpoint's round; write the settings.

        Raises:
            RunLogError: the folder already holds a run, or the remains of one.
            NotWrittenError: the folder cannot be written.
        """
        if self._goes_on:
            log = self._settle()
            _log.info("Going on with the run in %s after round %s", self.path, self.rounds_done)
        else:
            log = RunLog(self.path)
            self._held.enter_context(sole_writer(self.path))
            _log.info("This run is written to %s", self.path)
        write_settings(self.path, self._settings)
        return log

    def save(
        self,
        server_round: int,
        trained: Mapping[str, NDArray[Any]],
        strategy: Strategy,
        log: RunLog,
        model: Mapping[str, NDArray[Any]] | None,
        about: Mapping[str, Any],
    ) -> None:
        """Write the model and the checkpoint of a round that is over and in the log.

        Args:
            server_round: the round.
            trained: what is trained, name -> array, after it.
            strategy: with its state after the round.
            log: of the run.
            model: what prediction needs after it; None: the model that is there stays.
            about: what the header of ``model.safetensors`` says.

        Raises:
            NotWrittenError: one cannot be written; the last model and checkpoints are unchanged.
        """
        if model is not None:
            write_model(self.path / _NEXT_MODEL, model, about)
        self._checkpoints.save(
            Checkpoint(
                server_round=server_round,
                weights=trained,
                strategy=strategy_state(strategy),
                log_bytes=log.size,
                log_sha256=log.sha256,
                facts=self.identity.facts(),
            )
        )
        if model is not None:
            rename_file(self.path / _NEXT_MODEL, self.path / MODEL_FILE)

    def _settle(self) -> RunLog:
        """Bring model and log to the last checkpoint; return the log."""
        remove_unfinished(self.path)
        next_model, done = self.path / _NEXT_MODEL, self.checkpoint
        if done is not None and _round_of(next_model) == done.server_round:
            rename_file(next_model, self.path / MODEL_FILE)
        next_model.unlink(missing_ok=True)
        return RunLog.reopen(self.path, *((done.log_bytes, done.log_sha256) if done else (0,)))

    def _refuse_what_is_there(self) -> None:
        # Before anything is asked or written: a new run must not touch another one's files.
        if (self.path / RUN_LOG).exists():
            raise RunLogError(
                f"{self.path} holds a run already: choose another output folder, or go on with it "
                "with resume=true."
            )
        if self._checkpoints.files():
            raise RunLogError(
                f"{self.path / CHECKPOINT_FOLDER} holds checkpoints of a run whose {RUN_LOG} is "
                "gone: choose another output folder."
            )

    def _last_checkpoint(self) -> Checkpoint | None:
        """Return the last whole checkpoint; None for a run that was stopped before its first."""
        checkpoint = self._checkpoints.last()
        if checkpoint is None and (rounds := _rounds_logged(self.path)):
            raise RunLogError(
                f"{self.path} holds a run of {rounds} rounds, but no whole checkpoint of this "
                "release to go on from: choose another output folder, and keep 'keep-checkpoints' "
                "above 0."
            )
        return checkpoint


def output_folder(settings: Settings, run_id: int) -> Path:
    """Return the absolute folder of a run; a new one in the home folder if none is set."""
    if settings.output_dir:
        return Path(settings.output_dir)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path.home() / "flower-ist-runs" / f"{stamp}-{settings.strategy}-{run_id}"


def write_settings(folder: Path, settings: Settings) -> None:
    """Write the run's settings, whole or not at all.

    Raises:
        NotWrittenError: they cannot be written.
    """
    text = json.dumps(settings.to_run_config(), indent=2) + "\n"
    write_file(folder / SETTINGS_FILE, text)


def write_model(file: Path, weights: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write the model as safetensors, whole or not at all.

    Args:
        file: to write.
        weights: name -> array.
        about: what the file's header says of the model, as JSON values.

    Raises:
        NotWrittenError: it cannot be written; the model that was there is unchanged.
    """
    header = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()
    }
    # safetensors writes an array's memory as is: in any other order the numbers would be wrong.
    ordered = {name: np.asarray(weight, order="C") for name, weight in weights.items()}
    write_file(file, save(ordered, metadata=header))


def _round_of(model: Path) -> int:
    """Return the round of a model's file; -1 if there is none."""
    try:
        with safe_open(model, "np") as file:
            return int((file.metadata() or {})["round"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return -1


def _rounds_logged(folder: Path) -> int:
    try:
        return int(read_run(folder)[-1]["round"])
    except RunLogError:  # a log without a whole line has no round to lose
        return 0
