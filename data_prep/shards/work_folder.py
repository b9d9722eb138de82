"""Unfinished work on disk: a plan that a later run must match, and a file for each finished chunk.

The folder appears with its plan in one step, and so does each chunk file, so that a process may be
ended at any moment. It may lie on a disk that several machines share; they need no lock, as all of
them write the same content under the same name. Machines without a shared disk have one folder
each: copied together they are one finished folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.json_file import read_json
from flower_ist.differences import differences
from flower_ist.files import NotWrittenError, new_file, new_folder, whole_file, write_file

WORK_FOLDER = ".prep"
PLAN_FILE = "plan.json"
Plan = Mapping[str, Any]
"""What a command is about to do: the name of each setting or fact -> its JSON value."""


class WorkFolder:
    """The folder of one command's unfinished work: made new, or found with the same plan.

    A plan of which no chunk is finished is replaced.

    Raises:
        PrepError: it holds the work of another command, or is damaged.
        NotWrittenError: it cannot be made.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        # What json makes of the plan, so that tuples equal the lists that are read back.
        plan = json.loads(json.dumps(plan))
        self._plan = plan
        if not (path / PLAN_FILE).exists():
            _create(path, plan)
        elif self._others() and not any(path.glob("chunk-*.npz")):
            write_file(path / PLAN_FILE, _text(plan))  # nothing of the other command is lost
        self._check_plan()

    def has(self, chunk: int) -> bool:
        """Return whether a chunk is finished."""
        return self._file(chunk).exists()

    def write(self, chunk: int, rows: Mapping[str, NDArray[Any]]) -> None:
        """Store a finished chunk's arrays.

        Raises:
            PrepError: another command has taken the folder meanwhile.
            NotWrittenError: they cannot be written; no file of that chunk is left. The same
                command, started again, goes on after the chunks that are finished.
        """
        with contextlib.suppress(FileNotFoundError):
            if (self.path / PLAN_FILE).read_bytes() != _text(self._plan).encode():
                self._check_plan()
        with whole_file(self._file(chunk)) as file:
            np.savez(file, **rows)  # type: ignore[arg-type]

    def read(self, chunk: int) -> dict[str, NDArray[Any]]:
        """Return a finished chunk's arrays; the file's checksums are compared.

        Raises:
            PrepError: the file is damaged.
            FileNotFoundError: there is none.
        """
        try:
            with np.load(self._file(chunk), allow_pickle=False) as file:
                return dict(file)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as err:
            raise PrepError(
                f"{self._file(chunk)} is damaged ({err}): remove it and start the same command "
                "again."
            ) from err

    def _others(self) -> str:
        """Return how the plan in the folder differs from this command's; empty if it does not."""
        return differences(_read_plan(self.path / PLAN_FILE), self._plan)

    def _check_plan(self) -> None:
        if differ := self._others():
            raise PrepError(
                f"{self.path} holds the unfinished work of another command ({differ}): give that "
                f"command again, or remove {self.path} to start a new run."
            )

    def _file(self, chunk: int) -> Path:
        return self.path / f"chunk-{chunk:06d}.npz"


def remove_work(path: Path) -> None:
    """Remove a work folder; a removal that is cut short goes on in a later run.

    Its chunks are removed first, as without them it is in no other command's way, its plan last.
    """
    with contextlib.suppress(OSError):
        for entry in sorted(path.iterdir(), key=lambda entry: not entry.name.startswith("chunk-")):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != PLAN_FILE:
                entry.unlink(missing_ok=True)
        (path / PLAN_FILE).unlink(missing_ok=True)
        path.rmdir()


def _create(path: Path, plan: Plan) -> None:
    try:
        with new_folder(path) as unfinished, new_file(unfinished / PLAN_FILE) as file:
            file.write(_text(plan).encode())
    except NotWrittenError:
        # Another process may have been first; whether its plan is the same is compared next.
        if not (path / PLAN_FILE).exists():
            raise


def _read_plan(file: Path) -> dict[str, Any]:
    remedy = f"remove {file.parent} and start again."
    try:
        plan = read_json(file)
    except PrepError as err:
        raise PrepError(f"{str(err).rstrip('.')}: {remedy}") from err
    if not isinstance(plan, dict):
        raise PrepError(f"{file} is no plan of this program: {remedy}")
    return plan


def _text(plan: Plan) -> str:
    return json.dumps(plan, indent=1) + "\n"
