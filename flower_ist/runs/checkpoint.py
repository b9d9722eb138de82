"""Checkpoints: all that a run needs to resume after a round, each in one checked safetensors file.

``checkpoints/round-000012.safetensors`` holds the model after round 12, the strategy's state, the
length of the run log, the state of Python's random number generator, and facts that identify the
run. Nothing is pickled: arrays are safetensors, and the rest is JSON in the file's header. This
module imports neither flwr nor torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flower_ist.files import make_folder, write_file
from flower_ist.strategies.state import State

CHECKPOINT_FOLDER = "checkpoints"
_FORMAT = "flower-ist-checkpoint-1"
_ARRAY = "$array"

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
        facts: JSON values that identify the run: settings and data.
        random_state: of Python's global random number generator, with which Flower samples clients.
    """

    server_round: int
    weights: Mapping[str, NDArray[Any]]
    strategy: Mapping[str, State]
    log_bytes: int
    facts: Mapping[str, Any]
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

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, whole or not at all, then remove those that are too old.

        Raises:
            NotWrittenError: it cannot be written; existing ones are kept.
        """
        if not self.keep:
            return
        file = self.folder / f"round-{checkpoint.server_round:06d}.safetensors"
        make_folder(self.folder)
        write_file(file, _to_bytes(checkpoint))
        # Later rounds than this one are from before the run resumed from an earlier checkpoint.
        older = [other for other in self.files() if other.name < file.name]
        for other in older[: max(0, len(older) - self.keep + 1)]:
            with suppress(OSError):
                other.unlink()

    def last(self) -> Checkpoint | None:
        """Return the latest whole checkpoint; None if there is none. Damaged ones are logged."""
        for file in reversed(self.files()):
            try:
                return _read(file)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as err:
                _log.warning("%s is damaged and passed over: %s", file, str(err).splitlines()[:1])
        return None

    def files(self) -> list[Path]:
        """Return the files by round, without those that a killed process left unfinished."""
        return sorted(self.folder.glob("round-*.safetensors"))


def _to_bytes(checkpoint: Checkpoint) -> bytes:
    arrays = {f"weights/{name}": weight for name, weight in checkpoint.weights.items()}
    content = {
        "round": checkpoint.server_round,
        # The file sorts its arrays, but some strategies pair arrays by their order.
        "weights": list(checkpoint.weights),
        "strategy": _without_arrays(checkpoint.strategy, arrays),
        "log_bytes": checkpoint.log_bytes,
        "facts": checkpoint.facts,
        "random_state": checkpoint.random_state,
    }
    # safetensors writes an array's memory as is: in any other order the numbers would be wrong.
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(content)
    header = {"format": _FORMAT, "content": text, "sha256": _digest(text, ordered)}
    return save(ordered, metadata=header)


def _read(file: Path) -> Checkpoint:
    """Read a checkpoint back.

    Raises:
        ValueError: it is not a checkpoint, or differs from what was written.
    """
    with safe_open(file, framework="numpy") as opened:
        header = opened.metadata() or {}
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if header.get("format") != _FORMAT:
        raise ValueError(f"its format is {header.get('format')!r} instead of {_FORMAT!r}")
    if header.get("sha256") != _digest(header["content"], arrays):
        raise ValueError("its content does not match its hash")
    content = json.loads(header["content"])
    version, internal, gauss = content["random_state"]
    return Checkpoint(
        server_round=content["round"],
        weights={name: arrays[f"weights/{name}"] for name in content["weights"]},
        strategy={key: _with_arrays(value, arrays) for key, value in content["strategy"].items()},
        log_bytes=content["log_bytes"],
        facts=content["facts"],
        random_state=(version, tuple(internal), gauss),
    )


def _without_arrays(state: State, arrays: dict[str, NDArray[Any]]) -> Any:
    """Return a state with each array moved to ``arrays`` and its name in its place."""
    if isinstance(state, np.ndarray):
        name = f"state/{len(arrays)}"
        arrays[name] = state
        return {_ARRAY: name}
    if isinstance(state, Mapping):
        return {key: _without_arrays(value, arrays) for key, value in state.items()}
    if isinstance(state, Sequence) and not isinstance(state, str):
        return [_without_arrays(value, arrays) for value in state]
    return state


def _with_arrays(state: Any, arrays: Mapping[str, NDArray[Any]]) -> State:
    """Put the arrays back where :func:`_without_arrays` took them from."""
    if isinstance(state, dict):
        if state.keys() == {_ARRAY}:
            return arrays[state[_ARRAY]]
        return {key: _with_arrays(value, arrays) for key, value in state.items()}
    if isinstance(state, list):
        return [_with_arrays(value, arrays) for value in state]
    return state  # type: ignore[no-any-return]


def _digest(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of a checkpoint's JSON string and arrays."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
