"""The ways of choosing patches, one function each: pure numpy, whole numbers only.

``random`` follows MAE (He et al., CVPR 2022, https://arxiv.org/abs/2111.06377): uniform noise per
patch, the patches of lowest noise are kept. MAE also tries a block and a grid; there the block is
dropped and the grid exists at 75 % only. Here every kind keeps an exact number at any ratio, and
``block`` and ``center`` are regions that are kept.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_prep.masks.noise import BLOCK_MASKS, FIXED_MASKS, MASKS, noise

Grid = tuple[int, int]
"""Rows and columns of patches."""
Patches = NDArray[np.int64]


def random_mask(grid: Grid, kept: int, seed: int, image_ids: Patches, epoch: int) -> Patches:
    """Drawn for each image; the paper's "fixed".

    What a shard stores is the draw of epoch 0, one mask per image kept for good, which the paper
    calls fixed. Another epoch is another draw: the paper's random mask.
    """
    patches = grid[0] * grid[1]
    drawn = np.stack([noise(patches, seed, MASKS, first=i, second=epoch) for i in image_ids])
    return np.sort(np.argsort(drawn, axis=1, kind="stable")[:, :kept], axis=1)


def fixed_mask(grid: Grid, kept: int, seed: int, image_ids: Patches, epoch: int) -> Patches:
    """One draw for all images; not the paper's "fixed".

    It follows from the seed alone. The paper's fixed mask differs from image to image: that is
    :func:`random_mask`.
    """
    drawn = noise(grid[0] * grid[1], seed, FIXED_MASKS, first=0)
    return _same_for_all(np.argsort(drawn, kind="stable")[:kept], image_ids)


def grid_mask(grid: Grid, kept: int, seed: int, image_ids: Patches, epoch: int) -> Patches:
    """A regular pattern, the same for all images.

    The kept patches are dealt evenly to evenly spaced rows, aligned or staggered. Of all such
    patterns the one wins whose largest distance from a patch to the nearest kept one is least, then
    the one whose sum of squared distances is least, then most rows, then staggered. Above half, the
    dropped patches are spread so. Half is a checkerboard; a quarter of 14 x 14 is every second
    patch of every second row.
    """
    patches = grid[0] * grid[1]
    if kept > patches - kept:
        spread = _spread(grid, patches - kept) if kept < patches else np.zeros(grid, np.bool_)
        return _same_for_all(np.flatnonzero(~spread), image_ids)
    return _same_for_all(np.flatnonzero(_spread(grid, kept)), image_ids)


def block_mask(grid: Grid, kept: int, seed: int, image_ids: Patches, epoch: int) -> Patches:
    """One region, at a random place for each image.

    The region is contiguous: a rectangle, as square as possible, without the right end of its last
    row where the number kept asks for that. Every place that holds the rectangle is equally likely.
    """
    rows, columns = grid
    height, width = min(
        ((h, -(-kept // h)) for h in range(-(-kept // columns), min(rows, kept) + 1)),
        key=lambda box: (abs(box[0] - box[1]), box[0] * box[1]),
    )
    inside = np.arange(kept)
    region = inside // width * columns + inside % width
    # The remainder of a 64-bit number favors no place by more than 1 in 2**50.
    drawn = np.stack([noise(2, seed, BLOCK_MASKS, first=i, second=epoch) for i in image_ids])
    places = np.array([rows - height + 1, columns - width + 1], dtype=np.uint64)
    corners = (drawn % places).astype(np.int64)
    return region + (corners[:, :1] * columns + corners[:, 1:])


def center_mask(grid: Grid, kept: int, seed: int, image_ids: Patches, epoch: int) -> Patches:
    """The patches nearest to the center.

    The same for all images. Of equally near patches the upper, then the left one comes first.
    """
    # Twice the distance from the center is a whole number on even and odd grids alike.
    down, across = (2 * np.arange(n) - (n - 1) for n in grid)
    distance = down[:, None] ** 2 + across[None, :] ** 2
    return _same_for_all(np.argsort(distance, axis=None, kind="stable")[:kept], image_ids)


def _same_for_all(patches: NDArray[np.intp], image_ids: Patches) -> Patches:
    return np.tile(np.sort(patches).astype(np.int64), (len(image_ids), 1))


@cache
def _spread(grid: Grid, count: int) -> NDArray[np.bool_]:
    """Return (rows, columns) with ``count`` patches set, at least one, as evenly as can be."""
    # A row holds at most all of its patches and at least one that is set.
    lines = range(min(grid[0], count), -(-count // grid[1]) - 1, -1)
    patterns = [_in_rows(grid, count, n, staggered) for n in lines for staggered in (True, False)]
    return min(patterns, key=_unevenness)


def _in_rows(grid: Grid, total: int, lines: int, staggered: bool) -> NDArray[np.bool_]:
    """Return (rows, columns) with ``total`` patches set, dealt evenly to ``lines`` rows."""
    pattern = np.zeros(grid, dtype=np.bool_)
    for line in range(lines):
        count = (line + 1) * total // lines - line * total // lines
        # Of each of ``count`` stretches the middle, or turn by turn its first and third quarter.
        quarter = (1, 3)[line % 2] if staggered else 2
        columns = (4 * np.arange(count) + quarter) * grid[1] // (4 * count)
        pattern[(2 * line + 1) * grid[0] // (2 * lines), columns] = True
    return pattern


def _unevenness(pattern: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the largest and the sum of the squared distances to the nearest set patch."""
    rows, columns = (np.arange(n) for n in pattern.shape)
    # A row with none set is further away than any patch can be.
    far = sum(pattern.shape)
    along = np.abs(columns[:, None] - columns[None, :])
    in_row = np.where(pattern[:, None, :], along, far).min(axis=2)
    between = (rows[:, None] - rows[None, :]) ** 2
    squared = (between[:, :, None] + in_row[None, :, :] ** 2).min(axis=1)
    return int(squared.max()), int(squared.sum())
