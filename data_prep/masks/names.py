"""How a mask is asked for: kind, ratio and seed. Without numpy, as a command's help needs it."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from data_prep import PrepError

if TYPE_CHECKING:
    from flower_ist.tokens.meta import Mask

KINDS = {
    "random": 'drawn for each image; the paper\'s "fixed".',
    "fixed": 'one draw for all images; not the paper\'s "fixed".',
    "grid": "a regular pattern, the same for all images.",
    "block": "one region, at a random place for each image.",
    "center": "the patches nearest to the center.",
}
"""Every way of choosing patches, by the name that a shard's meta data carry, in a line."""
DRAWN_PER_EPOCH = ("random", "block")
"""Mask kinds that differ from epoch to epoch: only of these are several views worth storing."""


def describe_kinds() -> list[str]:
    """Return one line per kind, for a help text."""
    return [f"{kind}: {line}" for kind, line in KINDS.items()]


def make_mask(kind: str, ratio: float, seed: int, patches: int) -> Mask:
    """Return a mask on images of that many patches, as meta data carry it.

    Raises:
        PrepError: the kind is unknown, or the ratio or the seed is out of range.
    """
    from flower_ist.tokens.meta import Mask

    check_kind(kind)
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


def check_kind(kind: str) -> None:
    """Refuse a kind that does not exist.

    Raises:
        PrepError: it is unknown.
    """
    if kind not in KINDS:
        raise PrepError(f"The mask kind {kind!r} is unknown: use one of {', '.join(KINDS)}.")


def check_seed(seed: int) -> None:
    """Refuse a seed outside 0 to 2**64 - 1.

    Raises:
        PrepError: the seed is out of range.
    """
    if not 0 <= seed < 2**64:
        raise PrepError(f"The seed must be 0 to 2**64 - 1, not {seed}.")
