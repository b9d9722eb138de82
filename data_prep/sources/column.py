"""Images in a column of a data set: as bytes, as a struct of bytes and path, or as paths.

These are the forms that ``datasets``, pandas, polars and Spark write into Parquet files.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.decode import check_image, decode_image
from data_prep.images.reading import USUAL_READING, Reading

_BYTES = ("binary", "large_binary", "binary_view")
_TEXTS = ("string", "large_string", "string_view")


@dataclass(frozen=True)
class ColumnImages:
    """Reads one image of a column; only the place of its data is in memory.

    Attributes:
        dataset: A ``datasets.Dataset`` whose image column is not decoded.
        column: The image column.
        name: Names the data set in errors.
        folder: What paths are relative to.
        reading: What becomes of unusual images.
    """

    dataset: Any
    column: str
    name: str
    folder: Path = Path()
    reading: Reading = USUAL_READING

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 1 or 3) of image ``index``.

        Raises:
            PrepError: the image cannot be read.
        """
        file, _, name = self._file(index)
        return decode_image(file, name, self.reading)

    def fingerprint(self, indices: NDArray[np.int64]) -> bytes:
        """Return nothing: the images' ids and bytes are all that is known of them."""
        return b""

    def check(self, index: int) -> tuple[int, ...]:
        """Return the facts of image ``index`` and its bytes as a file.

        Raises:
            PrepError: the image cannot be read.
        """
        file, size, name = self._file(index)
        return *check_image(file, name, self.reading), size

    def call(self, index: int) -> str:
        """Return what image ``index`` is called."""
        return f"image {index} of {self.name}"

    def _file(self, index: int) -> tuple[Path | BinaryIO, int, str]:
        name = self.call(index).capitalize()
        entry = self.dataset[index][self.column]
        if not isinstance(entry, dict):
            is_path = isinstance(entry, str)
            entry = {"bytes": None if is_path else entry, "path": entry if is_path else None}
        content, path = entry.get("bytes"), entry.get("path")
        if content is not None:
            return io.BytesIO(content), len(content), name
        if path is None:
            raise PrepError(f"{name} is missing.")
        file = self.folder / path
        if not file.is_file():
            raise PrepError(f"{name} is missing: there is no file {file}.")
        return file, file.stat().st_size, f"{name}, {file},"


def holds_images(feature: Any) -> bool:
    """Return whether a column of this feature of ``datasets`` holds images, not their paths."""
    import datasets

    if isinstance(feature, dict):
        feature = feature.get("bytes")
    return isinstance(feature, datasets.Image) or getattr(feature, "dtype", None) in _BYTES


def holds_texts(feature: Any) -> bool:
    """Return whether a column of this feature of ``datasets`` holds texts."""
    return getattr(feature, "dtype", None) in _TEXTS


def undecoded(dataset: Any, column: str) -> Any:
    """Return a ``datasets.Dataset`` of one image column whose images stay as they are stored."""
    import datasets

    alone = dataset.select_columns([column])
    if isinstance(alone.features[column], datasets.Image):
        return alone.cast_column(column, datasets.Image(decode=False))
    return alone
