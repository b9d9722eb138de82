"""The folder of a run: held against a second process, begun or gone on with, saved each round."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from flower_ist.runs.checkpoint import CHECKPOINT_FOLDER, Checkpoint, Checkpoints
from flower_ist.runs.log import RUN_LOG, RunLog, RunLogError, sole_writer
from flower_ist.strategies.state import strategy_state
from flower_ist.tokens.shard import TokenShard
from server_app.output import write_model, write_settings
from server_app.resume import RunIdentity, find_checkpoint, is_finished
from server_app.settings import Settings

_log = logging.getLogger("flwr")


class RunFolder:
    """A run's folder, as a context manager. Nothing is written before :meth:`open_log`.

    Attributes:
        path: the folder.
        checkpoint: what the run goes on from; None for a new one.
        identity: settings and data of the run.

    Raises:
        RunLogError: another process writes to the folder, its run has no checkpoint, or it holds
            a run although this is a new one.
        SettingsError: the run in it was begun with other settings or data of the server.
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
                self.checkpoint = find_checkpoint(path)
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
        """Let go of the folder."""
        self._held.close()

    @property
    def rounds_done(self) -> int | None:
        """The last round that is over, 0 for none; None for a new run."""
        return None if self.checkpoint is None else self.checkpoint.server_round

    def is_finished(self) -> bool:
        """Tell whether nothing is left to do, and say so in the log.

        Raises:
            SettingsError: the run is longer already than ``num-rounds``.
        """
        return self.checkpoint is not None and is_finished(
            self._settings, self.path, self.checkpoint
        )

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

    def open_log(self) -> RunLog:
        """Create the run's log, or open it after the checkpoint's round; write the settings.

        Raises:
            RunLogError: the folder holds a run already, or what is left of one.
            NotWrittenError: the folder cannot be written.
        """
        if self._goes_on:
            log = RunLog.reopen(self.path, self.checkpoint.log_bytes if self.checkpoint else 0)
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
        model: Mapping[str, NDArray[Any]],
        about: Mapping[str, Any],
    ) -> None:
        """Write the model and the checkpoint of a round that is over and in the log.

        Args:
            server_round: the round; the initial model of round 0 is written as checkpoint only.
            trained: what is trained, name -> array, after it.
            strategy: with its state of after the round.
            log: of the run.
            model: what prediction needs after it.
            about: what the header of ``model.safetensors`` says.

        Raises:
            NotWrittenError: one cannot be written; the last model and checkpoints are unchanged.
        """
        if server_round > 0:
            write_model(self.path, model, about)
        self._checkpoints.save(
            Checkpoint(
                server_round=server_round,
                weights=trained,
                strategy=strategy_state(strategy),
                log_bytes=log.size,
                facts=self.identity.facts(),
            )
        )
