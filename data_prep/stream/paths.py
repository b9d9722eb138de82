"""Find images one after the other: files, folders, tables, a list on standard input, a camera's.

Nothing is decoded, and no list of all paths is in memory: of a folder, one folder's names are.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from data_prep import PrepError
from flower_ist.errors import first_line, why_unreadable

STANDARD_INPUT = "-"
_TABLES = (".csv", ".parquet")


def image_paths(images: Sequence[str], listed: TextIO) -> Iterator[Path]:
    """Yield the paths of images in the order given.

    Args:
        images: Each a file; a folder, whose files are found at any depth, sorted, without names
            that begin with a dot; a ``.csv`` or ``.parquet`` table with the column path, relative
            to the table; or ``-``.
        listed: Read for ``-``: a path a line.

    Raises:
        PrepError: a folder or a table cannot be read.
    """
    for name in images:
        path = Path(name)
        if name == STANDARD_INPUT:
            yield from (Path(line.rstrip("\r\n")) for line in listed if line.strip())
        elif path.is_dir():
            yield from _files_below(path)
        elif path.suffix == ".csv":
            yield from _csv_paths(path)
        elif path.suffix == ".parquet":
            yield from _parquet_paths(path)
        else:
            yield path


def count_images(images: Sequence[str]) -> int | None:
    """Return how many paths :func:`image_paths` yields; None if that takes a read of a list."""
    paths = [Path(name) for name in images]
    if STANDARD_INPUT in images or any(p.is_file() and p.suffix in _TABLES for p in paths):
        return None
    return sum(sum(1 for _ in _files_below(path)) if path.is_dir() else 1 for path in paths)


def watched_batches(folder: Path, size: int, every: float = 0.5) -> Iterator[list[Path]]:
    """Yield batches of up to ``size`` new images of a folder as they appear, without an end.

    A file is new once, and whole when its size and time have not changed for ``every`` seconds:
    a camera may still be writing. Those that are there at the start come first.

    Raises:
        PrepError: the folder cannot be listed.
    """
    known: dict[Path, tuple[int, int]] = {}
    done: set[Path] = set()
    while True:
        present = {path: state for path in _files_below(folder) if (state := _state(path))}
        ready = [path for path, state in present.items() if known.get(path) == state]
        # What was deleted is forgotten: memory holds the names that are there.
        done &= present.keys()
        fresh = [path for path in ready if path not in done]
        done.update(fresh)
        yield from batches(fresh, size)
        known = present
        time.sleep(every)


def batches(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    """Yield the paths ``size`` at a time; the last batch may be smaller."""
    batch: list[Path] = []
    for path in paths:
        batch.append(path)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:  # it was removed meanwhile
        return None
    return found.st_size, found.st_mtime_ns


def _files_below(folder: Path) -> Iterator[Path]:
    def fail(err: OSError) -> None:
        raise PrepError(f"{err.filename} cannot be listed: {first_line(err)}.") from err

    for found, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(found, name) for name in sorted(files) if not name.startswith("."))


def _csv_paths(table: Path) -> Iterator[Path]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened)
            if "path" not in (rows.fieldnames or ()):
                raise PrepError(f"{table} lacks the column 'path': add it.")
            for number, row in enumerate(rows, 1):
                if not row["path"]:
                    raise PrepError(f"{table} has no path in row {number}: fill it in.")
                yield table.parent / row["path"]
    except (OSError, ValueError, csv.Error) as err:
        raise PrepError(
            f"{table} cannot be read as a table: {why_unreadable(table, err)}."
        ) from err


def _parquet_paths(table: Path) -> Iterator[Path]:
    import pyarrow.parquet

    try:
        with table.open("rb") as opened:
            file = pyarrow.parquet.ParquetFile(opened)
            if "path" not in file.schema_arrow.names:
                raise PrepError(f"{table} lacks the column 'path': add it.")
            for part in file.iter_batches(columns=["path"]):
                for name in part.column("path").to_pylist():
                    if not isinstance(name, str) or not name:
                        raise PrepError(f"{table} has a row without a path: fill it in.")
                    yield table.parent / name
    except (OSError, ValueError) as err:  # Arrow's own errors are these
        raise PrepError(
            f"{table} cannot be read as a table: {why_unreadable(table, err)}."
        ) from err
