"""A labeled set of images: arrays in memory, or stored elsewhere and decoded when needed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.pixels import network_input
from data_prep.images.reading import Unusual
from data_prep.images.stored import StoredImages
from flower_ist.tokens.meta import Mask
from flower_ist.tokens.shard import array_sha256

_OF_EACH = ("file_bytes", "owners", "masked_bytes")
"""Arrays that a set may have, with an entry for each image."""


@dataclass(frozen=True)
class ImageSet:
    """Labeled images: arrays of one size in memory, or of any size and stored elsewhere.

    Attributes:
        images: (N, H, W, C) uint8, C = 1 or 3, or N stored images.
        labels: (N,) whole numbers, indices into ``class_names``.
        image_ids: (N,) positions in the published order; masks are drawn from them.
        class_names: One name per class.
        source: Where the images come from, in words.
        split: ``train`` or ``test``.
        file_bytes: (N,) bytes of each image's stored file, or None where images have no own file.
        skipped: A sentence for each unreadable file that was left out.
        unusual: What was done to images that are not plain 8-bit RGB or gray.
        left_out: A sentence on each part of the source that neither split reads.
        owners: (N,) whose image it is, or None where that is unknown.
        mask: The mask under which patches were dropped already (their pixels are 0), if any.
        masked_bytes: (N,) stored bytes of each image's kept patches, where ``mask`` is given.

    Raises:
        PrepError: the shapes do not fit each other, or a label names no class.
    """

    images: NDArray[np.uint8] | StoredImages
    labels: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    source: str
    split: str = "train"
    file_bytes: NDArray[np.int64] | None = None
    skipped: tuple[str, ...] = ()
    unusual: tuple[Unusual, ...] = ()
    left_out: tuple[str, ...] = ()
    owners: NDArray[np.str_] | None = None
    mask: Mask | None = None
    masked_bytes: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        count = len(self.images)
        if isinstance(self.images, np.ndarray):
            _check_array(self.images, self.source)
        elif not count:
            raise PrepError(f"{self.source}: there are no images.")
        if self.labels.shape != (count,) or self.image_ids.shape != (count,):
            raise PrepError(
                f"{self.source}: {count} images need as many labels and image ids, not "
                f"{self.labels.shape} and {self.image_ids.shape}."
            )
        for name, values in self._of_each().items():
            if values.shape != (count,):
                raise PrepError(
                    f"{self.source}: {count} images need as many {name}, not {values.shape}."
                )
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise PrepError(f"{self.source}: a label is outside 0 to {len(self.class_names) - 1}.")

    def __len__(self) -> int:
        return len(self.images)

    def _of_each(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in _OF_EACH}
        return {name: array for name, array in values.items() if array is not None}

    @property
    def native_bytes_of_each(self) -> NDArray[np.int64]:
        """(N,) height x width x channels of each image: its uncompressed bytes."""
        if isinstance(self.images, np.ndarray):
            return np.full(len(self), self.images[0].size, dtype=np.int64)
        return self.images.native_bytes

    @property
    def native_bytes(self) -> int:
        """The uncompressed bytes of all images."""
        return int(self.native_bytes_of_each.sum())

    def take(self, rows: NDArray[np.intp]) -> ImageSet:
        """Return the images of some rows, in that order."""
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            image_ids=self.image_ids[rows],
            **{name: values[rows] for name, values in self._of_each().items()},
        )

    def network_input(self, size: int, interpolation: str = "bicubic") -> torch.Tensor:
        """Return all images resized to (N, 3, size, size) uint8.

        Of stored images, one at a time is in memory at its native size.

        Raises:
            PrepError: the interpolation is unknown or an image cannot be read.
        """
        if isinstance(self.images, np.ndarray):
            return network_input(self.images, size, interpolation)
        resized = [network_input(pixels[None], size, interpolation) for pixels in self.images]
        return torch.cat(resized)

    def native_pixels(self) -> NDArray[np.uint8]:
        """Return all images at their native size, (N, H, W, C), all in memory.

        Raises:
            PrepError: they differ in size or channels, or an image cannot be read.
        """
        decoded: list[NDArray[np.uint8]] = []
        for pixels in self.images:
            if decoded and pixels.shape != decoded[0].shape:
                raise PrepError(
                    f"{self.source} has images of {decoded[0].shape} and of {pixels.shape} pixels "
                    "and channels: raw pixels can be compared only where all are of one size."
                )
            decoded.append(pixels)
        return np.stack(decoded)

    def find(self, image_ids: NDArray[np.int64], classes: NDArray[np.str_]) -> NDArray[np.intp]:
        """Return the rows (B,) of the images with these ids (B,) and class names (B,).

        Raises:
            PrepError: an id is not there, or its image is of another class.
        """
        order = np.argsort(self.image_ids, kind="stable")
        found = np.searchsorted(self.image_ids, image_ids, sorter=order)
        rows = order[np.minimum(found, len(order) - 1)]
        names = np.array(self.class_names)[self.labels[rows]]
        wrong = (self.image_ids[rows] != image_ids) | (names != classes)
        if wrong.any():
            first = int(wrong.argmax())
            raise PrepError(
                f"{self.source} ({self.split}) has no image {image_ids[first]} of class "
                f"{str(classes[first])!r}: give the source and the split that the shard was made "
                "of."
            )
        return rows

    def sha256(self) -> str:
        """Return a SHA-256 that is the same on every machine that has the same images.

        Of arrays in memory every pixel counts; of stored images their ids, their bytes as pixels
        and as files, and their reader's fingerprint.
        """
        digest = hashlib.sha256(self.image_ids.astype("<i8").tobytes())
        if self.file_bytes is not None:
            digest.update(self.file_bytes.astype("<i8").tobytes())
        if isinstance(self.images, np.ndarray):
            digest.update(f"{self.images.shape} {array_sha256(self.images)}".encode())
        else:
            digest.update(self.images.native_bytes.astype("<i8").tobytes())
            digest.update(self.images.reader.fingerprint(self.images.indices))
        return digest.hexdigest()


def _check_array(images: NDArray[np.uint8], source: str) -> None:
    shape = images.shape
    if len(shape) != 4 or shape[3] not in (1, 3) or images.dtype != np.uint8 or not len(images):
        raise PrepError(
            f"{source}: images must be uint8 of shape (N, H, W) or (N, H, W, 1 or 3) with "
            f"N of 1 and up, not {images.dtype} of shape {shape}."
        )
