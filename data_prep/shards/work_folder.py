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
import textwrap
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.json_file import read_json
from flower_ist.files import NotWrittenError, new_file, new_folder, whole_file

WORK_FOLDER = ".prep"
PLAN_FILE = "plan.json"
Plan = Mapping[str, Any]
"""What a command is about to do: the name of each setting or fact -> its JSON value."""


class WorkFolder:
    """The folder of one command's unfinished work: made new, or found with the same plan.

    Raises:
        PrepError: it holds the work of another command, or is damaged.
        NotWrittenError: it cannot be made.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        # What json makes of the plan, so that tuples equal the lists that are read back.
        plan = json.loads(json.dumps(plan))
        if not (path / PLAN_FILE).exists():
            _create(path, plan)
        _check_same(path, _read_plan(path / PLAN_FILE), plan)

    def has(self, chunk: int) -> bool:
        """Return whether a chunk is finished."""
        return self._file(chunk).exists()

    def write(self, chunk: int, rows: Mapping[str, NDArray[Any]]) -> None:
        """Store a finished chunk's arrays.

        Raises:
            NotWrittenError: they cannot be written; no file of that chunk is left. The same
                command, started again, goes on after the chunks that are finished.
        """
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

    def remove(self) -> None:
        """Remove the folder, its plan last: a removal that is cut short goes on in a later run."""
        with contextlib.suppress(OSError):
            for entry in list(self.path.iterdir()):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.name != PLAN_FILE:
                    entry.unlink(missing_ok=True)
            (self.path / PLAN_FILE).unlink(missing_ok=True)
            self.path.rmdir()

    def _file(self, chunk: int) -> Path:
        return self.path / f"chunk-{chunk:06d}.npz"


def _create(path: Path, plan: Plan) -> None:
    try:
        with new_folder(path) as unfinished, new_file(unfinished / PLAN_FILE) as file:
            file.write((json.dumps(plan, indent=1) + "\n").encode())
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


def _check_same(path: Path, found: Plan, wanted: Plan) -> None:
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        if found.get(name) != wanted.get(name):
            before, now = (_shown(plan.get(name)) for plan in (found, wanted))
            raise PrepError(
                f"{path} holds the unfinished work of another command, whose {name} was {before} "
                f"and here is {now}: give that command again, or remove {path} to start a new run."
            )


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value)
    return textwrap.shorten(text, 60, placeholder=" ...")
