"""A folder that appears under its name only when everything in it has been written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep import PrepError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` to write to; rename it when the block ends well.

    Any exception in the block removes what was written.

    Raises:
        PrepError: the folder exists already, or writing fails, for instance on a full disk.
    """
    target = folder.absolute()
    if target.exists():
        raise PrepError(f"{target} exists already: choose another folder or remove it.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, target)
    except OSError as err:
        reason = err.strerror or str(err)
        raise PrepError(f"{target} cannot be written: {reason}; nothing was kept.") from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
