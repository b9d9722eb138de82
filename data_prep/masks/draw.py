"""Which patches of an image are kept: pure numpy, drawn again at will from (seed, image id, epoch).

Masks drop patches before a frozen encoder as in Kariotakis et al. (CPAL 2024, PMLR 234:554-569).
Unlike there, the number kept is exact and a mask is a function of its arguments, so that it never
has to be stored or sent.

The paper's words differ from ours. Its "fixed" mask is one random mask per image, drawn once and
kept for good: our ``random`` at epoch 0, which is what a shard stores. Its "random" mask is drawn
anew each epoch: our ``random`` at epochs 0, 1, ... Our ``fixed`` is one mask for all images.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.masks.kinds import Grid, block_mask, center_mask, fixed_mask, grid_mask, random_mask
from data_prep.masks.names import check_kind, check_seed, kept_count
from flower_ist.tokens.meta import Mask

MaskKind = Callable[[Grid, int, int, NDArray[np.int64], int], NDArray[np.int64]]
"""(grid, kept, seed, image ids (B,), epoch) -> sorted kept patch indices (B, kept)."""

MASK_KINDS: dict[str, MaskKind] = {
    "random": random_mask,
    "fixed": fixed_mask,
    "grid": grid_mask,
    "block": block_mask,
    "center": center_mask,
}
"""The function of each of :data:`data_prep.masks.names.KINDS`."""


def square_grid(mask: Mask) -> Grid:
    """Return rows and columns of the patches that a mask was drawn on.

    Raises:
        PrepError: their number is no square.
    """
    side = isqrt(mask.patches)
    if side * side != mask.patches:
        raise PrepError(f"{mask.patches} patches are no square grid: their masks cannot be drawn.")
    return side, side


def draw_mask(mask: Mask, image_ids: NDArray[np.int64], epoch: int = 0) -> NDArray[np.int64]:
    """Return the patches (B, kept) that a mask keeps of images of a square grid of patches.

    Raises:
        PrepError: as :func:`kept_patches` and :func:`square_grid`.
    """
    grid = square_grid(mask)
    return kept_patches(
        mask.kind, grid, mask.ratio, seed=mask.seed, image_ids=image_ids, epoch=epoch
    )


def kept_patches(
    kind: str,
    grid: Grid,
    ratio: float,
    *,
    seed: int,
    image_ids: NDArray[np.int64],
    epoch: int = 0,
) -> NDArray[np.int64]:
    """Return the kept patches of each image as sorted indices in row order, (B, kept) int64.

    The same arguments give the same indices on every machine and in every batch. Epoch 0 is the
    one mask per image that a stored shard uses.

    Args:
        kind: A name in ``MASK_KINDS``.
        grid: Rows and columns of patches.
        ratio: The share of patches to drop, in [0, 1).
        seed: 0 to 2**64 - 1.
        image_ids: (B,) whole numbers of 0 and up.
        epoch: 0 and up.

    Raises:
        PrepError: the kind is unknown or an argument is out of range.
    """
    check_kind(kind)
    kept = kept_count(grid[0] * grid[1], ratio)
    check_seed(seed)
    if not 0 <= epoch < 2**64:
        raise PrepError(f"The epoch must be 0 to 2**64 - 1, not {epoch}.")
    ids = np.asarray(image_ids, dtype=np.int64)
    if not len(ids):
        return np.empty((0, kept), dtype=np.int64)
    if ids.min() < 0:
        raise PrepError(f"Image ids must be 0 and up, not {ids.min()}.")
    return MASK_KINDS[kind](grid, kept, seed, ids, epoch)
