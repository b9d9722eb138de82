"""A table of image files: ``.csv`` or ``.parquet`` with the columns path and label.

Optional columns: ``split`` says train or test (or val, validation) of each image, ``client`` whose
image it is. Paths count from the table's folder. Spaces around labels, splits and clients do not
count, nor do a split's capitals.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep import PrepError
from data_prep.errors import first_line
from data_prep.images.check import check_images
from data_prep.images.class_names import check_same_classes, in_order
from data_prep.images.decode import ImageFiles, look_at_file
from data_prep.images.image_set import ImageSet

TEST_NAMES = ("test", "validation", "val", "valid")
"""What a published test split may be called; the first that is there counts."""
SUFFIXES = (".csv", ".parquet")
_NEEDED, _OPTIONAL = ("path", "label"), ("split", "client")
Table = Mapping[str, Sequence[str]]


def table_has_test(path: Path) -> bool:
    """Return whether a table has a split column, which then names train and a test split.

    Raises:
        PrepError: the table cannot be read.
    """
    return "split" in _read(path)


def count_table_test(path: Path) -> int:
    """Return how many rows are of the test split of a table that has one.

    Raises:
        PrepError: the table cannot be read.
    """
    splits = _read(path)["split"]
    return splits.count(_test_name(splits))


def read_table(
    path: Path,
    split: str,
    on_error: str = "stop",
    *,
    partial: bool = False,
    workers: int | None = None,
) -> ImageSet:
    """Read the images that a table lists; only their paths and sizes stay in memory.

    Classes are the distinct labels of all rows, in the order of :func:`in_order`. An image's id is
    its row in the table, from 0. Without a split column all rows are read; of several test splits
    the first of ``TEST_NAMES`` counts. Every file is decoded once, here, to find unreadable ones.

    Args:
        path: The table.
        split: ``train`` or ``test``; which one to read where both are there.
        on_error: ``stop``, or ``skip`` to list unreadable files in the set's ``skipped``.
        partial: A class schema follows: a class may lack images in a split.
        workers: Threads that check files; None for as many as there are cores, up to 8.

    Raises:
        PrepError: the table cannot be read, lacks a column or a value, its split column has other
            words or lacks a split, a class is in one split only, or a file cannot be read under
            ``stop``.
    """
    table = _read(path)
    names = in_order(table["label"])
    rows = list(range(len(table["path"])))
    if "split" in table:
        tests = _test_name(table["split"])
        chosen = {
            name: [row for row in rows if table["split"][row] == name] for name in ("train", tests)
        }
        if not partial:
            held = [{table["label"][row] for row in part} for part in chosen.values()]
            places = [f"the split {name} of {path}" for name in chosen]
            check_same_classes(held[0], held[1], places[0], places[1])
        rows = chosen[tests if split == "test" else "train"]
    files = [path.parent / table["path"][row] for row in rows]
    checked = check_images(
        lambda row: look_at_file(files[row]), len(files), split, on_error, workers
    )
    number = {name: label for label, name in enumerate(names)}
    kept = [rows[row] for row in checked.rows]
    owners = np.array([table["client"][row] for row in kept]) if "client" in table else None
    return ImageSet(
        images=ImageFiles(
            tuple(files[row] for row in checked.rows), checked.facts[:, 0], checked.facts[:, 2]
        ),
        labels=np.array([number[table["label"][row]] for row in kept], dtype=np.int64),
        image_ids=np.array(kept, dtype=np.int64),
        class_names=names,
        source=path.stem,
        split=split,
        file_bytes=checked.facts[:, 1],
        skipped=checked.skipped,
        owners=owners,
    )


def _test_name(splits: Sequence[str]) -> str:
    return next(name for name in TEST_NAMES if name in splits)


def _read(path: Path) -> Table:
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
    try:
        import pyarrow.parquet
    except ImportError as err:
        raise PrepError(
            "Reading .parquet needs pyarrow: in the checkout, pip install -e '.[prep]'."
        ) from err
    # Arrow's own errors are ValueErrors and OSErrors.
    with path.open("rb") as opened:
        file = pyarrow.parquet.ParquetFile(opened)
        present = file.schema_arrow.names
        used = [name for name in present if name in (*_NEEDED, *_OPTIONAL)]
        columns: dict[str, list[object]] = file.read(columns=used).to_pydict()
    # Names of the others serve the sentence about a missing column.
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
    """Return a split column in small letters; one that says less than it seems to is refused.

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
