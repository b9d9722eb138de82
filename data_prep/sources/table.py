"""A table of image files: ``.csv`` or ``.parquet`` with the columns path and label.

Optional columns: ``split`` says train or test (or val, validation) of each image, ``client`` whose
image it is. Paths are relative to the table's folder. Spaces around labels, splits and clients do
not count, nor do a split's capitals.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep import PrepError
from data_prep.errors import first_line
from data_prep.images.check import ReadOptions, check_files
from data_prep.images.classes import check_same_classes, in_order
from data_prep.images.image_set import ImageSet

TEST_NAMES = ("test", "validation", "val", "valid")
"""What a published test split may be called; the first one found counts."""
SUFFIXES = (".csv", ".parquet")
_NEEDED, _OPTIONAL = ("path", "label"), ("split", "client")


class TableSource:
    """The images that a table lists; only their paths and sizes stay in memory.

    Classes are the distinct labels of all rows, in the order of :func:`in_order`. An image's id is
    its row in the table, from 0. Of several test splits the first of ``TEST_NAMES`` counts. Every
    file is decoded once when a split is read, to find unreadable ones.

    Raises:
        PrepError: the table cannot be read, lacks a column or a value, or its split column has
            other words or lacks a split.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path, self._options = path, options
        self._table = _read(path)
        splits = self._table.get("split")
        self._test = next(name for name in TEST_NAMES if name in splits) if splits else None

    @property
    def has_test(self) -> bool:
        """Whether a split column names a train and a test split."""
        return self._test is not None

    def count_test(self) -> int:
        """Return how many rows are of the test split."""
        return len(self._rows_of(self._test))

    def read(self, split: str) -> ImageSet:
        """Read ``train`` or ``test``; without a split column all rows are read.

        Raises:
            PrepError: a class is in one split only, or a file cannot be read under ``stop``.
        """
        table = self._table
        rows = list(range(len(table["path"])))
        if self._test is not None:
            if not self._options.partial:
                words = ("train", self._test)
                classes = [{table["label"][row] for row in self._rows_of(word)} for word in words]
                check_same_classes(*classes, *(f"the split {w} of {self._path}" for w in words))
            rows = self._rows_of(self._test if split == "test" else "train")
        paths = [self._path.parent / table["path"][row] for row in rows]
        files, file_bytes, checked = check_files(paths, split, self._options)
        names = in_order(table["label"])
        number = {name: label for label, name in enumerate(names)}
        kept = [rows[row] for row in checked.rows]
        owners = table.get("client")
        return ImageSet(
            images=files,
            labels=np.array([number[table["label"][row]] for row in kept], dtype=np.int64),
            image_ids=np.array(kept, dtype=np.int64),
            class_names=names,
            source=self._path.stem,
            split=split,
            file_bytes=file_bytes,
            skipped=checked.skipped,
            owners=None if owners is None else np.array([owners[row] for row in kept]),
        )

    def _rows_of(self, name: str | None) -> list[int]:
        return [row for row, word in enumerate(self._table.get("split", ())) if word == name]


def _read(path: Path) -> Mapping[str, Sequence[str]]:
    """Return a table's known columns as texts; the split column only where it names two splits."""
    try:
        columns = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, ValueError, csv.Error) as err:
        raise PrepError(f"{path} cannot be read as a table: {first_line(err)}.") from err
    if missing := [name for name in _NEEDED if name not in columns]:
        raise PrepError(
            f"{path} lacks the column {missing[0]!r}: it has {', '.join(columns)} and needs path "
            "and label."
        )
    used = {name: columns[name] for name in (*_NEEDED, *_OPTIONAL) if name in columns}
    if not used["path"]:
        raise PrepError(f"{path} lists no images.")
    texts = {name: _texts(path, name, values) for name, values in used.items()}
    if (splits := _split_words(path, texts.pop("split", ()))) is not None:
        texts["split"] = splits
    return texts


def _read_csv(path: Path) -> dict[str, list[object]]:
    # The byte order mark that spreadsheets write would become part of the first column's name.
    with path.open(encoding="utf-8-sig", newline="") as opened:
        lines = csv.reader(opened)
        header = next(lines, [])
        rows = [line for line in lines if line]
    if ragged := next((n for n, row in enumerate(rows, 1) if len(row) != len(header)), None):
        raise ValueError(f"row {ragged} has {len(rows[ragged - 1])} of {len(header)} fields")
    return {name: [row[k] for row in rows] for k, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, list[object]]:
    import pyarrow.parquet

    # Arrow's own errors are ValueErrors and OSErrors.
    with path.open("rb") as opened:
        file = pyarrow.parquet.ParquetFile(opened)
        present = file.schema_arrow.names
        used = [name for name in present if name in (*_NEEDED, *_OPTIONAL)]
        columns: dict[str, list[object]] = file.read(columns=used).to_pydict()
    # The other columns' names appear in the error about a missing column.
    return {name: columns.get(name, []) for name in present}


def _texts(path: Path, name: str, values: Sequence[object]) -> list[str]:
    for row, value in enumerate(values, 1):
        if value is None or not str(value).strip():
            raise PrepError(f"{path} has no {name} in row {row}: fill it in.")
        if not isinstance(value, str | int):
            raise PrepError(f"{path}: {name} must hold texts or whole numbers, not {value!r}.")
    # A file's name may begin or end with a space.
    return [str(value) if name == "path" else str(value).strip() for value in values]


def _split_words(path: Path, values: Sequence[str]) -> list[str] | None:
    """Return a split column in small letters; one that cannot be followed exactly is refused.

    None for one that names one split only: all rows are of one set then, as without a column.
    """
    words = [value.lower() for value in values]
    found, tests = set(words), set(TEST_NAMES)
    if not found or found in [{name} for name in ("train", *TEST_NAMES)]:
        return None
    if "train" not in found or not found & tests or found - tests - {"train"}:
        shown = textwrap.shorten(", ".join(sorted(set(values))), 60, placeholder=" ...")
        raise PrepError(
            f"The column split of {path} must hold train and one of {', '.join(TEST_NAMES)}, and "
            f"nothing else, but it holds {shown}: correct it, or rename the column to have a share "
            "held out."
        )
    return words
