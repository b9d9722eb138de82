"""Pixels as arrays: resized for a network, zero under dropped patches, counted in bytes."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.masks.kinds import Grid

if TYPE_CHECKING:
    import torch

INTERPOLATIONS = ("bicubic", "bilinear")


def check_interpolation(name: str) -> None:
    """Raise PrepError where an interpolation is unknown."""
    if name not in INTERPOLATIONS:
        raise PrepError(
            f"The interpolation {name!r} is unknown: use {' or '.join(INTERPOLATIONS)}."
        )


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
    # Settings check interpolations by this module, and a command's help needs no torch.
    import torch

    check_interpolation(interpolation)
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


def _patch_of_pixel(pixels: int, patches: int) -> NDArray[np.intp]:
    # Whole-number form of floor((pixel + 1/2) * patches / pixels).
    return (2 * np.arange(pixels) + 1) * patches // (2 * pixels)
