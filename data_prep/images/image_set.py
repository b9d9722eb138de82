"""Pixels: a labeled set of images, its resized input for a network, its masked pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.masks.kinds import Grid
from flower_ist.tokens.meta import Mask

INTERPOLATIONS = ("bicubic", "bilinear")


class StoredImages(Protocol):
    """Images that stay where they are stored until they are decoded."""

    @property
    def native_bytes(self) -> NDArray[np.int64]:
        """(N,) uncompressed bytes of each image."""

    def __len__(self) -> int:
        """Return the number of images."""

    def take(self, rows: NDArray[np.intp]) -> Self:
        """Return some images, in that order; none is decoded."""

    def decode(self, rows: slice | NDArray[np.intp]) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels (H, W, 1 or 3) of some images, one at a time.

        Raises:
            PrepError: an image cannot be read.
        """


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
        owners: (N,) texts: whose image it is, or None where nobody knows.
        mask: The mask under which patches were dropped already (their pixels are 0), if any.
        masked_bytes: (N,) stored bytes of each image's kept patches, where ``mask`` is given.
    """

    images: NDArray[np.uint8] | StoredImages
    labels: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    source: str
    split: str = "train"
    file_bytes: NDArray[np.int64] | None = None
    skipped: tuple[str, ...] = ()
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
        for name in ("file_bytes", "owners", "masked_bytes"):
            values = getattr(self, name)
            if values is not None and values.shape != (count,):
                raise PrepError(
                    f"{self.source}: {count} images need as many {name}, not {values.shape}."
                )
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise PrepError(f"{self.source}: a label is outside 0 to {len(self.class_names) - 1}.")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def native_bytes(self) -> int:
        """Height x width x channels, summed over the images: their uncompressed bytes."""
        if isinstance(self.images, np.ndarray):
            return self.images.size
        return int(self.images.native_bytes.sum())

    def take(self, rows: NDArray[np.intp]) -> ImageSet:
        """Return the images of some rows, in that order."""
        images = self.images
        return replace(
            self,
            images=images[rows] if isinstance(images, np.ndarray) else images.take(rows),
            labels=self.labels[rows],
            image_ids=self.image_ids[rows],
            file_bytes=None if self.file_bytes is None else self.file_bytes[rows],
            owners=None if self.owners is None else self.owners[rows],
            masked_bytes=None if self.masked_bytes is None else self.masked_bytes[rows],
        )

    def network_input(self, rows: slice, size: int, interpolation: str = "bicubic") -> torch.Tensor:
        """Return some images as :func:`network_input` (B, 3, size, size) uint8.

        Of stored images, one at a time is in memory at its native size.

        Raises:
            PrepError: the interpolation is unknown or an image cannot be read.
        """
        if isinstance(self.images, np.ndarray):
            return network_input(self.images[rows], size, interpolation)
        decoded = self.images.decode(rows)
        return torch.cat([network_input(pixels[None], size, interpolation) for pixels in decoded])

    def native_pixels(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return some images at their native size, (B, H, W, C), all in memory.

        Raises:
            PrepError: they differ in size or channels, or an image cannot be read.
        """
        if isinstance(self.images, np.ndarray):
            return self.images[rows]
        decoded: list[NDArray[np.uint8]] = []
        for pixels in self.images.decode(rows):
            if decoded and pixels.shape != decoded[0].shape:
                raise PrepError(
                    f"{self.source} has images of {decoded[0].shape} and of {pixels.shape} pixels "
                    "and channels: raw pixels can be compared only where all are of one size."
                )
            decoded.append(pixels)
        return np.stack(decoded)


def network_input(
    images: NDArray[np.uint8], size: int, interpolation: str = "bicubic"
) -> torch.Tensor:
    """Resize images (B, H, W, C) uint8 to (B, 3, size, size) uint8.

    Rounding to whole numbers is what image libraries do; here it also lets kept patches be stored
    as bytes and encoded later to the same tokens. The whole image is resized, not cropped, so that
    every native pixel lies under one patch. Gray images are repeated to three channels. Shrinking
    is antialiased.

    Raises:
        PrepError: the interpolation is unknown.
    """
    if interpolation not in INTERPOLATIONS:
        raise PrepError(
            f"The interpolation {interpolation!r} is unknown: use {' or '.join(INTERPOLATIONS)}."
        )
    # A copy, as torch warns of arrays that cannot be written, such as those of a file's bytes.
    pixels = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C"))
    if pixels.shape[2:] != (size, size):
        resized = torch.nn.functional.interpolate(
            pixels.float(), size=(size, size), mode=interpolation, antialias=True
        )
        # Bicubic overshoots at edges.
        pixels = resized.round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


def masked_pixels(
    images: NDArray[np.uint8], grid: Grid, kept: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Set the native pixels under dropped patches to zero: (B, H, W, C) -> (B, H, W, C).

    A pixel belongs to the patch under its center. ``kept`` (B, k) holds patch indices in row order.
    """
    shown = np.zeros((len(images), grid[0] * grid[1]), dtype=np.uint8)
    np.put_along_axis(shown, kept, 1, axis=1)
    rows, columns = (_patch_of_pixel(images.shape[1 + axis], grid[axis]) for axis in (0, 1))
    masks = shown.reshape(-1, *grid)[:, rows[:, None], columns[None, :]]
    return images * masks[..., None]


def masked_bytes(native_bytes: int, patches: int, kept: int) -> int:
    """Return the bytes of the kept patches of images of ``native_bytes`` bytes in total.

    A patch covers ``1 / patches`` of its image. That is a whole number of bytes where the grid
    divides the image; elsewhere it counts shares of pixels and the total is rounded up.
    """
    return ceil(Fraction(native_bytes * kept, patches))


def _check_array(images: NDArray[np.uint8], source: str) -> None:
    shape = images.shape
    if len(shape) != 4 or shape[3] not in (1, 3) or images.dtype != np.uint8 or not len(images):
        raise PrepError(
            f"{source}: images must be uint8 of shape (N, H, W) or (N, H, W, 1 or 3) with "
            f"N of 1 and up, not {images.dtype} of shape {shape}."
        )


def _patch_of_pixel(pixels: int, patches: int) -> NDArray[np.intp]:
    # Whole-number form of floor((pixel + 1/2) * patches / pixels).
    return (2 * np.arange(pixels) + 1) * patches // (2 * pixels)
