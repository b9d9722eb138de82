"""How images are masked for storage: sizes, mask and compression, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.image_set import INTERPOLATIONS
from data_prep.masks.draw import kept_count, kept_patches
from data_prep.masks.noise import check_seed
from flower_ist.tokens.meta import Mask


@dataclass(frozen=True)
class MaskSettings:
    """How images are masked for storage; the encoder must be asked for the same.

    Attributes:
        image_size: Height and width in pixels that images are resized to.
        patch_size: Height and width in pixels of the encoder's patches.
        kind: A name in ``masking.MASK_KINDS``.
        ratio: Share of patches dropped, in [0, 1).
        seed: Of the masks.
        interpolation: ``bicubic`` or ``bilinear``.
        compress: Whether to store lossless WebP instead of plain pixels.

    Raises:
        PrepError: they make no sense.
    """

    image_size: int
    patch_size: int
    kind: str = "random"
    ratio: float = 0.5
    seed: int = 0
    interpolation: str = "bicubic"
    compress: bool = False

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.image_size < 1 or self.image_size % self.patch_size:
            raise PrepError(
                f"An image size of {self.image_size} pixels is no multiple of patches of "
                f"{self.patch_size}."
            )
        if self.interpolation not in INTERPOLATIONS:
            raise PrepError(
                f"The interpolation {self.interpolation!r} is unknown: use "
                f"{' or '.join(INTERPOLATIONS)}."
            )
        check_seed(self.seed)
        # An unknown kind is found out by drawing a mask.
        self.kept(np.zeros(1, dtype=np.int64))

    @property
    def compression(self) -> str:
        """A name in ``patch_codec.COMPRESSIONS``."""
        return "webp" if self.compress else "none"

    @property
    def mask(self) -> Mask:
        """The mask as meta data carry it."""
        patches = (self.image_size // self.patch_size) ** 2
        kept = kept_count(patches, self.ratio)
        return Mask(self.kind, self.ratio, self.seed, patches, kept)

    def kept(self, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the kept patches (B, k) of some images."""
        side = self.image_size // self.patch_size
        return kept_patches(
            self.kind, (side, side), self.ratio, seed=self.seed, image_ids=image_ids
        )
