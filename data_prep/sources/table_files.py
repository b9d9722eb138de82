"""The files of a table, CSV or Parquet: their columns' names, values and images."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep import PrepError
from data_prep.sources.column import undecoded
from flower_ist.errors import is_lfs_pointer, why_unreadable


def parquet_files(path: Path) -> list[Path]:
    """Return the Parquet files of a table: itself, or those of a folder in the order of names."""
    if not path.is_dir():
        return [path] if path.suffix == ".parquet" else []
    return sorted(file for file in path.glob("*.parquet") if not file.name.startswith((".", "_")))


class TableFiles:
    """A table's columns; nothing but their names is in memory.

    Attributes:
        path: The file, or the folder of Parquet files.
        names: Of its columns.
        image_columns: Those that hold bytes, or structs with ``bytes``.

    Raises:
        PrepError: a file cannot be read as a table, or two have different columns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parquet = parquet_files(path)
        self._rows: list[list[str]] = []
        self.names, self.image_columns = self._parquet_columns() if self._parquet else ([], [])
        if not self._parquet:
            self.names, self._rows = _read_csv(path)

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        """Return the values of some columns, row by row.

        Raises:
            PrepError: they cannot be read.
        """
        if not self._parquet:
            places = [self.names.index(name) for name in names]
            return [[row[place] for row in self._rows] for place in places]
        import pyarrow.parquet

        values: list[list[Any]] = [[] for _ in names]
        for file in self._parquet:
            try:
                with file.open("rb") as opened:
                    table = pyarrow.parquet.ParquetFile(opened).read(columns=list(names))
            # Arrow's own errors are ValueErrors and OSErrors.
            except (OSError, ValueError) as err:
                raise _unreadable(file, err) from err
            for column, name in zip(values, names, strict=True):
                column += table[name].to_pylist()
        return values

    def images(self, column: str) -> Any:
        """Return a ``datasets.Dataset`` of a column of images, not decoded.

        The library keeps a copy of the column in its cache folder, of which it reads one image at
        a time: a Parquet file can only be read in groups of rows, which may be the whole file.

        Raises:
            PrepError: it cannot be read.
        """
        import datasets

        try:
            loaded = datasets.load_dataset(
                "parquet",
                data_files=[str(file.absolute()) for file in self._parquet],
                columns=[column],
                split="train",
            )
        # The library wraps what went wrong in errors of its own.
        except Exception as err:
            raise _unreadable(self.path, err.__cause__ or err) from err
        return undecoded(loaded, column)

    def _parquet_columns(self) -> tuple[list[str], list[str]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schemas = []
        for file in self._parquet:
            try:
                schemas.append(pq.read_schema(file))
            except (OSError, ValueError) as err:
                raise _unreadable(file, err) from err
            if schemas[-1].names != schemas[0].names:
                raise PrepError(
                    f"{file} and {self._parquet[0]} have different columns: one table needs the "
                    "same in each file."
                )
        images = []
        for field in schemas[0]:
            kind = field.type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                kind = kind.field("bytes").type
            if str(kind) in ("binary", "large_binary", "binary_view"):
                images.append(field.name)
        return list(schemas[0].names), images


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        # The byte order mark that spreadsheets write would become part of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as opened:
            lines = csv.reader(opened)
            header = next(lines, [])
            rows = [line for line in lines if line]
    except (OSError, ValueError, csv.Error) as err:
        raise _unreadable(path, err) from err
    ragged = next((n for n, row in enumerate(rows, 1) if len(row) != len(header)), 0)
    if ragged or is_lfs_pointer(path):
        fields = f"{len(rows[ragged - 1])} of {len(header)} fields"
        raise _unreadable(path, ValueError(f"row {ragged} has {fields}"))
    return header, rows


def _unreadable(file: Path, err: BaseException) -> PrepError:
    return PrepError(f"{file} cannot be read as a table: {why_unreadable(file, err)}.")
