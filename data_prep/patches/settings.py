"""How images are masked for storage: sizes, mask and compression."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from data_prep import PrepError
from data_prep.masks.names import describe_kinds, make_mask
from data_prep.options import option

if TYPE_CHECKING:
    from flower_ist.tokens.meta import Mask

_MASK = "Masks"


@dataclass(frozen=True)
class MaskSettings:
    """How images are masked for storage; the encoder must be asked for the same.

    Raises:
        PrepError: the image size is no multiple of the patch size, or the mask cannot be drawn.
    """

    image_size: int = option(
        "Images are resized to this height and width: the encoder's input size.", panel=_MASK
    )
    patch_size: int = option("Height and width of the encoder's patches, in pixels.", panel=_MASK)
    _: KW_ONLY
    kind: str = option(
        "\n\n".join(["Which patches are kept.", *describe_kinds()]),
        "random",
        panel=_MASK,
        flag="--mask",
    )
    ratio: float = option(
        "Share of patches dropped, from 0 to below 1.", 0.5, panel=_MASK, flag="--mask-ratio"
    )
    seed: int = option("Seed of the masks and of the test share.", 0, panel=_MASK)
    interpolation: str = option("bicubic or bilinear.", "bicubic", panel=_MASK)
    compress: bool = option("Store lossless WebP instead of plain pixels.", False, panel=_MASK)

    def __post_init__(self) -> None:
        from data_prep.images.pixels import check_interpolation

        if self.patch_size < 1 or self.image_size < 1 or self.image_size % self.patch_size:
            raise PrepError(
                f"An image size of {self.image_size} pixels is no multiple of patches of "
                f"{self.patch_size}."
            )
        check_interpolation(self.interpolation)
        _ = self.mask

    @property
    def compression(self) -> str:
        """A name in ``codec.COMPRESSIONS``."""
        return "webp" if self.compress else "none"

    @property
    def mask(self) -> Mask:
        """The mask as meta data carry it."""
        patches = (self.image_size // self.patch_size) ** 2
        return make_mask(self.kind, self.ratio, self.seed, patches)
