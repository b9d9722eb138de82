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
from fractions import Fraction
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.masks.kinds import Grid, block_mask, center_mask, fixed_mask, grid_mask, random_mask
from data_prep.masks.noise import check_seed
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
"""Every way of choosing patches, by the name that a shard's meta data carry."""
DRAWN_PER_EPOCH = ("random", "block")
"""Mask kinds that differ from epoch to epoch: only of these are several views worth storing."""


def describe_kinds() -> list[str]:
    """Return one line per kind: its name and the first line of its function's docstring."""
    lines = {name: (kind.__doc__ or "").partition("\n")[0] for name, kind in MASK_KINDS.items()}
    return [f"{name}: {line[:1].lower()}{line[1:]}" for name, line in lines.items()]


def make_mask(kind: str, ratio: float, seed: int, patches: int) -> Mask:
    """Return a mask on images of that many patches, as meta data carry it.

    Raises:
        PrepError: the kind is unknown, or the ratio or the seed is out of range.
    """
    _check_kind(kind)
    check_seed(seed)
    return Mask(kind, ratio, seed, patches, kept_count(patches, ratio))


def check_views(views: int, mask: Mask) -> None:
    """Refuse views that would all be the same token.

    Raises:
        PrepError: there are none, or the mask does not change from epoch to epoch.
    """
    if views < 1:
        raise PrepError(f"The number of views must be at least 1, not {views}.")
    if views > 1 and (mask.kind not in DRAWN_PER_EPOCH or mask.kept == mask.patches):
        raise PrepError(
            f"{views} views of the {mask.kind} mask at ratio {mask.ratio} would be {views} times "
            "the same token: use one view, or a random or block mask that drops patches."
        )


def kept_count(patches: int, ratio: float) -> int:
    """Return how many of ``patches`` remain at mask ratio ``ratio``: ``floor(patches * (1 - r))``.

    The ratio is read as the decimal number it prints as: 100 patches at 0.9 keep 10, where binary
    floating point gives 9.

    Raises:
        PrepError: the ratio is outside [0, 1) or keeps no patch.
    """
    if patches < 1:
        raise PrepError(f"An image needs at least 1 patch, not {patches}.")
    if not 0 <= ratio < 1:
        raise PrepError(f"The mask ratio must be at least 0 and below 1, not {ratio}.")
    kept = int(patches * (1 - Fraction(str(ratio))))
    if kept < 1:
        raise PrepError(
            f"A mask ratio of {ratio} keeps none of {patches} patches: use a smaller ratio or a "
            "larger image size."
        )
    return kept


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
    _check_kind(kind)
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


def _check_kind(kind: str) -> None:
    if kind not in MASK_KINDS:
        raise PrepError(f"The mask kind {kind!r} is unknown: use one of {', '.join(MASK_KINDS)}.")
