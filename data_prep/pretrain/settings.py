"""How an encoder is pre-trained: the options of ``pretrain`` that change the result."""

from __future__ import annotations

import math
from dataclasses import dataclass

from data_prep import PrepError
from data_prep.masks.noise import check_seed


@dataclass(frozen=True)
class PretrainSettings:
    """Two runs with equal settings and images are the same run.

    Attributes:
        vit: Name of the timm ViT to start from; the next entries change its sizes.
        image_size: Height and width in pixels.
        patch_size: Height and width of a patch in pixels.
        dim: Width of the encoder, a multiple of 4 and of ``heads``.
        depth: Its blocks.
        heads: Attention heads of each block.
        decoder_dim: Width of the decoder, a multiple of 4; it has a head for each full 32.
        decoder_depth: Its blocks.
        mask_ratio: Share of patches that the encoder does not see.
        epochs: Passes over the images.
        batch_size: Images in a step.
        learning_rate: Peak of the schedule, for this batch size.
        warmup_epochs: Epochs over which the rate rises to its peak, at most half of all.
        weight_decay: Of AdamW, on matrices only.
        least_crop: Least share of an image's area that a crop keeps; 1 switches crops off.
        normalization: ``half`` or ``imagenet``.
        seed: Of weights, masks, orders and crops.
    """

    vit: str = "vit_tiny_patch16_224"
    image_size: int = 28
    patch_size: int = 4
    dim: int = 128
    depth: int = 4
    heads: int = 4
    decoder_dim: int = 64
    decoder_depth: int = 1
    mask_ratio: float = 0.75
    epochs: int = 36
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05
    least_crop: float = 0.8
    normalization: str = "half"
    seed: int = 0

    def vit_sizes(self) -> dict[str, int]:
        """Return the options that timm builds the encoder with, beside its image size."""
        return {
            "patch_size": self.patch_size,
            "embed_dim": self.dim,
            "depth": self.depth,
            "num_heads": self.heads,
        }

    def learning_rate_at(self, epoch: float) -> float:
        """Return the rate after some epochs: a linear rise, then half a cosine down to 0."""
        warmup = min(self.warmup_epochs, self.epochs / 2)
        if epoch < warmup:
            return self.learning_rate * epoch / warmup
        done = (epoch - warmup) / (self.epochs - warmup)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def check(self) -> None:
        """Refuse settings of no use.

        Raises:
            PrepError: with one sentence that names the setting.
        """
        check_seed(self.seed)
        for name in ("epochs", "batch_size", "patch_size", "depth", "heads", "decoder_depth"):
            if getattr(self, name) < 1:
                raise PrepError(f"{_key(name)} must be at least 1, not {getattr(self, name)}.")
        for name in ("dim", "decoder_dim"):
            if getattr(self, name) < 4 or getattr(self, name) % 4:
                raise PrepError(f"{_key(name)} must be a multiple of 4, not {getattr(self, name)}.")
        if self.dim % self.heads:
            raise PrepError(f"A width of {self.dim} cannot be shared by {self.heads} heads.")
        if not 0 < self.mask_ratio < 1:
            raise PrepError(
                f"mask-ratio must be above 0 and below 1, not {self.mask_ratio}: without dropped "
                "patches there is nothing to learn."
            )
        if not 0 < self.least_crop <= 1:
            raise PrepError(f"least-crop must be above 0 and at most 1, not {self.least_crop}.")
        if not 0 < self.learning_rate < math.inf:
            raise PrepError(f"learning-rate must be above 0, not {self.learning_rate}.")
        for name in ("warmup_epochs", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise PrepError(f"{_key(name)} must be at least 0, not {getattr(self, name)}.")


def _key(name: str) -> str:
    return name.replace("_", "-")
