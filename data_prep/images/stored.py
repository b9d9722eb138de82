"""Images that stay where they are stored until they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ImageReader(Protocol):
    """Decodes the images of one place, each by its number there; it holds no pixels."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 1 or 3) of one image.

        Raises:
            PrepError: it cannot be read.
        """

    def fingerprint(self, indices: NDArray[np.int64]) -> bytes:
        """Return what tells some images from others of the same sizes, without decoding any.

        It is the same on every machine that has the same images, and empty where nothing is known.
        """


@dataclass(frozen=True)
class StoredImages:
    """Some images of a reader; like an array of images, it is indexed and gone through.

    Attributes:
        reader: Decodes them.
        indices: (N,) their numbers at the reader.
        native_bytes: (N,) height x width x channels of each image: its uncompressed bytes.
    """

    reader: ImageReader
    indices: NDArray[np.int64]
    native_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> StoredImages:
        """Return some images, in that order; none is decoded."""
        return StoredImages(self.reader, self.indices[rows], self.native_bytes[rows])

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels (H, W, 1 or 3) of each image, one at a time.

        Raises:
            PrepError: an image cannot be read.
        """
        for index in self.indices:
            yield self.reader.read(int(index))
