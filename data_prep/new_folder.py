"""A folder that appears under its name only when everything in it has been written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep import PrepError
from data_prep.errors import first_line


def refuse_existing(folder: Path) -> None:
    """Find out before any work that a folder cannot be made.

    Raises:
        PrepError: it exists already.
    """
    if folder.exists():
        raise PrepError(f"{folder} exists already: choose another folder or remove it.")


def refuse_inside(folder: Path, *sources: str | Path | None) -> None:
    """Find out before any work that a folder would lie among the images that it is made of.

    Args:
        folder: What is going to be written.
        sources: Where the images come from; what is no folder has no inside.

    Raises:
        PrepError: it is one of the sources or lies in one: it would be read as images next time.
    """
    target = folder.resolve()
    for source in sources:
        if source is None or not Path(source).is_dir():
            continue
        if target.is_relative_to(Path(source).resolve()):
            raise PrepError(
                f"{folder} lies in the folder of the images, {source}, where it may be taken for "
                "some of them: choose a folder outside."
            )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` to write to; rename it when the block ends well.

    Any exception in the block removes what was written.

    Raises:
        PrepError: the folder exists already, or writing fails, for instance on a full disk.
    """
    target = folder.absolute()
    refuse_existing(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, target)
    except OSError as err:
        raise PrepError(
            f"{target} cannot be written: {first_line(err)}; nothing was kept."
        ) from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
