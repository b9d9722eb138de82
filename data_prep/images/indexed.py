"""Stored images that another library holds and gives out by their number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ImageReader(Protocol):
    """Decodes one image of a data set."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 1 or 3) of image ``index``.

        Raises:
            PrepError: the image cannot be read.
        """


@dataclass(frozen=True)
class IndexedImages:
    """Images of a data set by their numbers there; a ``StoredImages``.

    Attributes:
        reader: Decodes image i of the data set.
        indices: (N,) numbers of the images in the data set.
        native_bytes: (N,) height x width x channels of each image, in bytes.
    """

    reader: ImageReader
    indices: NDArray[np.int64]
    native_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def take(self, rows: NDArray[np.intp]) -> IndexedImages:
        """Return some images, in that order; none is decoded."""
        return IndexedImages(self.reader, self.indices[rows], self.native_bytes[rows])

    def decode(self, rows: slice | NDArray[np.intp]) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels (H, W, 1 or 3) of some images, one at a time.

        Raises:
            PrepError: an image cannot be read.
        """
        for index in self.indices[rows]:
            yield self.reader.read(int(index))
