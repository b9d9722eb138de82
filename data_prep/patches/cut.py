"""Kept patches of one image: cut out, put back, and laid side by side. Pure numpy.

An image is (S, S, C) uint8 in patches of P x P pixels, numbered in row order; P divides S.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def cut_patches(image: Pixels, kept: NDArray[np.int64], patch_size: int) -> Pixels:
    """Return the patches (k, P, P, C) of an image whose indices are ``kept`` (k,)."""
    side, channels = image.shape[0] // patch_size, image.shape[2]
    grid = image.reshape(side, patch_size, side, patch_size, channels)
    patches: Pixels = grid.transpose(0, 2, 1, 3, 4)[kept // side, kept % side]
    return patches


def place_patches(patches: Pixels, kept: NDArray[np.int64], image_size: int) -> Pixels:
    """Return an image (S, S, C) with ``patches`` (k, P, P, C) in their places, zero elsewhere."""
    patch_size, channels = patches.shape[1], patches.shape[3]
    side = image_size // patch_size
    grid = np.zeros((side, side, patch_size, patch_size, channels), dtype=np.uint8)
    grid[kept // side, kept % side] = patches
    return grid.transpose(0, 2, 1, 3, 4).reshape(image_size, image_size, channels)


def lay_mosaic(patches: Pixels) -> Pixels:
    """Return patches (k, P, P, C) as one picture, as square as can be, black at the end."""
    count, patch_size, _, channels = patches.shape
    rows, columns = _mosaic(count)
    cells = np.zeros((rows * columns, *patches.shape[1:]), dtype=np.uint8)
    cells[:count] = patches
    grid = cells.reshape(rows, columns, patch_size, patch_size, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * patch_size, columns * patch_size, channels)


def lift_mosaic(picture: Pixels, count: int, patch_size: int) -> Pixels:
    """Return the ``count`` patches (k, P, P, C) of a picture of :func:`lay_mosaic`.

    Raises:
        ValueError: the picture is of another size.
    """
    rows, columns = _mosaic(count)
    if picture.shape[:2] != (rows * patch_size, columns * patch_size):
        raise ValueError(f"a mosaic of {count} patches cannot be {picture.shape[:2]} pixels")
    grid = picture.reshape(rows, patch_size, columns, patch_size, picture.shape[2])
    cells = grid.transpose(0, 2, 1, 3, 4).reshape(-1, patch_size, patch_size, picture.shape[2])
    return cells[:count]


def _mosaic(count: int) -> tuple[int, int]:
    columns = math.isqrt(count - 1) + 1
    return -(-count // columns), columns
