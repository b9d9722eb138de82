"""Checkpoints: all that a run needs to resume after a round, each in one checked safetensors file.

``checkpoints/round-000012.safetensors`` holds the model after round 12, the strategy's state,
length and hash of the run log, the state of Python's random number generator, and facts that
identify the run, all of it sealed (:mod:`flower_ist.runs.sealed`). What is remembered of each
client is beside it, as only a few entries change in a round (:mod:`flower_ist.runs.changes`). This
module imports neither flwr nor torch.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flower_ist.files import make_folder, write_file
from flower_ist.runs.changes import Changes, read_changes
from flower_ist.runs.sealed import UnreadableError, sealed, unsealed
from flower_ist.strategies.state import State
from flower_ist.tracked import TrackedDict

CHECKPOINT_FOLDER = "checkpoints"
_KEY = "flower-ist-checkpoint-3"
_ARRAY = "$array"
_TRACKED = "$tracked"

RandomState: TypeAlias = tuple[Any, ...]

_log = logging.getLogger("flwr")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two rounds.

    Attributes:
        server_round: the last completed round; 0 if there is none yet.
        weights: the model after it, name -> array, in the model's own order.
        strategy: the strategy's state, see :mod:`flower_ist.strategies.state`.
        log_bytes: length of the run log in bytes, including the round's line.
        facts: JSON values and tracked dicts that identify the run: settings and data.
        log_sha256: of those bytes, in hex; empty if it is not known.
        random_state: of Python's global random number generator, with which Flower samples clients.
    """

    server_round: int
    weights: Mapping[str, NDArray[Any]]
    strategy: Mapping[str, State]
    log_bytes: int
    facts: Mapping[str, Any]
    log_sha256: str = ""
    random_state: RandomState = field(default_factory=random.getstate)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: of the run; they are in its subfolder ``checkpoints``.
        keep: how many of the latest to keep; with 0 none are written and none are removed.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder / CHECKPOINT_FOLDER
        self.keep = keep
        self._changes = Changes(self.folder)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, whole or not at all, then remove those that are too old.

        Raises:
            NotWrittenError: it cannot be written; existing ones are kept.
        """
        if not self.keep:
            return
        file = self.folder / f"round-{checkpoint.server_round:06d}.safetensors"
        make_folder(self.folder)
        write_file(file, _to_bytes(checkpoint, self._changes))
        # Later rounds than this one are from before the run resumed from an earlier checkpoint.
        older = [other for other in self.files() if other.name < file.name]
        with suppress(OSError):
            for other in older[: max(0, len(older) - self.keep + 1)]:
                other.unlink()
            self._changes.remove_before(int(self.files()[0].stem.removeprefix("round-")))

    def last(self) -> Checkpoint | None:
        """Return the latest whole checkpoint; None if there is none. Damaged ones are logged."""
        for file in reversed(self.files()):
            try:
                return _read(file)
            except (UnreadableError, ValueError, KeyError, TypeError) as err:
                _log.warning("%s is damaged and passed over: %s", file, str(err).splitlines()[:1])
        return None

    def files(self) -> list[Path]:
        """Return the files by round, without those that a killed process left unfinished."""
        return sorted(self.folder.glob("round-*.safetensors"))


def _to_bytes(checkpoint: Checkpoint, changes: Changes) -> bytes:
    arrays = {f"weights/{name}": weight for name, weight in checkpoint.weights.items()}
    tracked: dict[str, TrackedDict[Any]] = {}
    content = {
        "round": checkpoint.server_round,
        # The file sorts its arrays, but some strategies pair arrays by their order.
        "weights": list(checkpoint.weights),
        "strategy": _taken_apart(checkpoint.strategy, arrays, tracked),
        "log_bytes": checkpoint.log_bytes,
        "log_sha256": checkpoint.log_sha256,
        "facts": _taken_apart(checkpoint.facts, arrays, tracked),
        "random_state": checkpoint.random_state,
    }
    # First the changes: what a checkpoint names is there.
    content["changes"] = changes.write(checkpoint.server_round, tracked) if tracked else None
    return sealed(_KEY, content, arrays)


def _read(file: Path) -> Checkpoint:
    """Read a checkpoint back.

    Raises:
        UnreadableError: it is not a checkpoint, or differs from what was written.
    """
    content, arrays = unsealed(file, _KEY)
    version, internal, gauss = content["random_state"]
    written = content["changes"]
    tracked = {} if written is None else read_changes(file.parent, written)
    return Checkpoint(
        server_round=content["round"],
        weights={name: arrays[f"weights/{name}"] for name in content["weights"]},
        strategy=_put_together(content["strategy"], arrays, tracked),
        log_bytes=content["log_bytes"],
        facts=_put_together(content["facts"], arrays, tracked),
        log_sha256=content["log_sha256"],
        random_state=(version, tuple(internal), gauss),
    )


def _taken_apart(
    state: Any, arrays: dict[str, NDArray[Any]], tracked: dict[str, TrackedDict[Any]]
) -> Any:
    """Return a state with each array and tracked dict moved away and its name in its place."""
    if isinstance(state, np.ndarray):
        name = f"state/{len(arrays)}"
        arrays[name] = state
        return {_ARRAY: name}
    if isinstance(state, TrackedDict):
        name = str(len(tracked))
        tracked[name] = state
        return {_TRACKED: name}
    if isinstance(state, Mapping):
        # A client may be called as what stands for an array: its name gets another sign.
        return {
            f"${key}" if key.startswith("$") else key: _taken_apart(value, arrays, tracked)
            for key, value in state.items()
        }
    if isinstance(state, Sequence) and not isinstance(state, str):
        return [_taken_apart(value, arrays, tracked) for value in state]
    return state


def _put_together(
    state: Any, arrays: Mapping[str, NDArray[Any]], tracked: Mapping[str, dict[str, Any]]
) -> Any:
    """Put back what :func:`_taken_apart` moved away."""
    if isinstance(state, dict):
        if state.keys() == {_ARRAY}:
            return arrays[state[_ARRAY]]
        if state.keys() == {_TRACKED}:
            return tracked[state[_TRACKED]]
        return {
            key.removeprefix("$"): _put_together(value, arrays, tracked)
            for key, value in state.items()
        }
    if isinstance(state, list):
        return [_put_together(value, arrays, tracked) for value in state]
    return state
