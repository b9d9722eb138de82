"""A table of images: ``.csv`` or ``.parquet`` with a label and a path, or the image itself, a row.

Of the columns ``label`` is needed, beside ``path`` or, in Parquet files, one column of image bytes
or of structs of ``bytes`` and ``path``, as pandas, polars, Spark and ``datasets`` write them. A
folder of Parquet files, as Spark writes it, is one table. Optional columns: ``split`` says train or
test (or val, validation) of each image, ``client`` whose image it is. Paths are relative to the
table's folder. Spaces around labels, splits and clients do not count, nor do a split's capitals.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep import PrepError
from data_prep.images.check import Readable, ReadOptions, check_files, check_images
from data_prep.images.classes import check_names, check_same_classes, in_order
from data_prep.images.image_set import ImageSet
from data_prep.images.stored import StoredImages
from data_prep.sources.column import ColumnImages
from data_prep.sources.table_files import TableFiles
from flower_ist.console import printable

TEST_NAMES = ("test", "validation", "val", "valid")
"""What a published test split may be called; the first one found counts."""
SUFFIXES = (".csv", ".parquet")


class TableSource:
    """The images that a table lists; only their paths and sizes stay in memory.

    Classes are the distinct labels of all rows, in the order of :func:`in_order`. An image's id is
    its row in the table, from 0. Of several test splits the first of ``TEST_NAMES`` counts. Every
    image is decoded once when a split is read, to find unreadable ones. Options name the columns
    otherwise: ``TABLE.parquet?image=picture&label=kind``.

    Args:
        path: The table, or a folder of Parquet files.
        columns: Names of columns, by the words in ``OPTIONS``.
        options: How images are checked.

    Raises:
        PrepError: the table cannot be read, lacks a column or a value, or its split column has
            other words or lacks a split.
    """

    OPTIONS = ("image", "label", "split", "client")

    def __init__(
        self, path: Path, options: ReadOptions, columns: Mapping[str, str] | None = None
    ) -> None:
        self._path, self._options = path, options
        files = TableFiles(path)
        self._bytes, used = _choose_columns(files, columns or {})
        values = dict(zip(used, files.columns(list(used.values())), strict=True))
        if not values["label"]:
            raise PrepError(f"{path} lists no images.")
        if self._bytes and "path" in values:
            # Beside bytes, paths may be of the machine where the table was written.
            if (path.parent / str(values["path"][0])).is_file():
                self._bytes = None
            else:
                del values["path"]
        texts = {
            role: _texts(path, used[role], column, strip=role != "path")
            for role, column in values.items()
        }
        self._files, self._table = files, texts
        self._splits = _split_words(path, used.get("split", ""), texts.get("split", ()))
        self._test = next((name for name in TEST_NAMES if name in self._splits), None)

    @property
    def has_test(self) -> bool:
        """Whether a split column names a train and a test split."""
        return self._test is not None

    def read(self, split: str) -> ImageSet:
        """Read ``train`` or ``test``; without a split column all rows are read.

        Raises:
            PrepError: a class is in one split only, or a file cannot be read under ``stop``.
        """
        labels, test = self._table["label"], self._test
        rows = list(range(len(labels)))
        if test is not None:
            if not self._options.partial:
                words = ("train", test)
                classes = [{labels[row] for row in self._rows_of(word)} for word in words]
                check_same_classes(*classes, *(f"the split {w} of {self._path}" for w in words))
            rows = self._rows_of(test if split == "test" else "train")
        names = check_names(in_order(labels), str(self._path))
        images, file_bytes, checked = self._checked(rows, split)
        number = {name: label for label, name in enumerate(names)}
        kept = [rows[row] for row in checked.rows]
        owners = self._table.get("client")
        return ImageSet(
            images=images,
            labels=np.array([number[labels[row]] for row in kept], dtype=np.int64),
            image_ids=np.array(kept, dtype=np.int64),
            class_names=names,
            source=printable(self._path.stem),
            split=split,
            file_bytes=file_bytes,
            skipped=checked.skipped,
            unusual=checked.unusual,
            left_out=self._left_out(),
            owners=None if owners is None else np.array([owners[row] for row in kept]),
        )

    def _checked(
        self, rows: list[int], split: str
    ) -> tuple[StoredImages, np.ndarray[tuple[int], np.dtype[np.int64]], Readable]:
        """Return the readable images, their bytes as files, and what the check found."""
        if self._bytes is None:
            return check_files([self._path_of(row) for row in rows], split, self._options)
        images = ColumnImages(
            self._files.images(self._bytes),
            self._bytes,
            self._path.name,
            self._path if self._path.is_dir() else self._path.parent,
            self._options.reading,
        )
        checked = check_images(
            lambda row: images.check(rows[row]),
            len(rows),
            split,
            self._options,
            lambda row: images.call(rows[row]),
        )
        places = np.array(rows, dtype=np.int64)[checked.rows]
        return StoredImages(images, places, checked.facts[:, 0]), checked.facts[:, 3], checked

    def _path_of(self, row: int) -> Path:
        return self._path.parent / self._table["path"][row]

    def _rows_of(self, name: str) -> list[int]:
        return [row for row, word in enumerate(self._splits) if word == name]

    def _left_out(self) -> tuple[str, ...]:
        others = [name for name in TEST_NAMES if name in self._splits and name != self._test]
        return tuple(
            f"The split {name} of {self._path} is left out with its {self._splits.count(name)} "
            f"images: only train and {self._test} are read."
            for name in others
        )


def _choose_columns(
    files: TableFiles, asked: Mapping[str, str]
) -> tuple[str | None, dict[str, str]]:
    """Return the column of image bytes, if any, and the column of texts for each role.

    Raises:
        PrepError: a column is missing, or which holds the images is not clear.
    """
    path, present = files.path, files.names
    for role, column in asked.items():
        if column not in present:
            raise PrepError(
                f"{path} has no column {column!r} for ?{role}=: it has {', '.join(present)}."
            )
    images, image = files.image_columns, asked.get("image")
    used = {role: asked.get(role, role) for role in ("label", "split", "client")}
    used = {role: column for role, column in used.items() if column in present}
    if image is not None and image not in images:
        used["path"], image = image, None
    elif image is None:
        if "path" in present and "path" not in images:
            used["path"] = "path"
        elif len(images) > 1:
            raise PrepError(
                f"{path} has several columns of images: choose one of {', '.join(images)} with "
                "?image=COLUMN."
            )
        image = images[0] if len(images) == 1 else None
        if image is None and "path" not in used:
            raise PrepError(
                f"{path} lacks the column 'path': it has {', '.join(present) or 'no columns'}; "
                "name the column of paths or of image bytes with ?image=COLUMN."
            )
    if "label" not in used:
        raise PrepError(
            f"{path} lacks the column 'label': it has {', '.join(present)}; name the labels' "
            "column with ?label=COLUMN."
        )
    return image, used


def _texts(path: Path, name: str, values: Sequence[object], *, strip: bool) -> list[str]:
    for row, value in enumerate(values, 1):
        if value is None or not str(value).strip():
            raise PrepError(f"{path} has no {name} in row {row}: fill it in.")
        if not isinstance(value, str | int):
            raise PrepError(f"{path}: {name} must hold texts or whole numbers, not {value!r}.")
    # A file's name may begin or end with a space.
    return [str(value).strip() if strip else str(value) for value in values]


def _split_words(path: Path, column: str, values: Sequence[str]) -> list[str]:
    """Return a split column in small letters; one that cannot be followed exactly is refused.

    Empty for one that names one split only: all rows are of one set then, as without a column.
    """
    words = [value.lower() for value in values]
    found, tests = set(words), set(TEST_NAMES)
    if not found or found in [{name} for name in ("train", *TEST_NAMES)]:
        return []
    if "train" not in found or not found & tests or found - tests - {"train"}:
        shown = textwrap.shorten(", ".join(sorted(set(values))), 60, placeholder=" ...")
        raise PrepError(
            f"The column {column} of {path} must hold train and one of {', '.join(TEST_NAMES)}, "
            f"and nothing else, but it holds {shown}: correct it, or rename the column to have a "
            "share held out."
        )
    return words
