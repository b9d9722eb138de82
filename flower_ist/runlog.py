"""The run log: one JSON object per round and line, on the disk as soon as the round is over.

Every field is described in docs/measuring.md. A crash loses at most the line being written, and a
reader skips such a torn last line. This module imports neither flwr nor torch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUN_LOG = "run.jsonl"


class RunLogError(ValueError):
    """A run log is missing or cannot be read."""


class RunLog:
    """Append rounds to ``run.jsonl``, each flushed to the disk before the next begins.

    Raises:
        RunLogError: the folder holds a run already; nothing is ever overwritten.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RUN_LOG
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.touch(exist_ok=False)
        except FileExistsError:
            state = "holds a run already" if folder.is_dir() else "is not a folder"
            raise RunLogError(f"{folder} {state}: choose another output folder.") from None
        except OSError as err:
            raise RunLogError(f"The run log cannot be written: {err}.") from err

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one round. The file is open only meanwhile: nothing is left to close."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(line), allow_nan=False, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_run(path: Path) -> list[dict[str, Any]]:
    """Read a run's rounds from its folder or from the file itself.

    Raises:
        RunLogError: there is no run log, it is empty, or a line other than the last is damaged.
    """
    file = path / RUN_LOG if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise RunLogError(f"There is no readable run log at {file}: {err}.") from err
    rounds: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            content = None
        if isinstance(content, dict) and "round" in content:
            rounds.append(content)
        elif number < len(lines):
            raise RunLogError(f"Line {number} of {file} is not a round of a run log.")
    if not rounds:
        raise RunLogError(f"{file} holds no round yet.")
    return rounds


def _plain(value: Any) -> Any:
    """Return a value with what JSON has no number for (NaN, infinity) as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
