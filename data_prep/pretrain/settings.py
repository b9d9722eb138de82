"""How an encoder is pre-trained: the options of ``pretrain`` that change the result."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

from data_prep import PrepError
from data_prep.masks.names import check_seed
from data_prep.options import check_bounds, option

_NETWORK, _TRAINING = "Network", "Training"


@dataclass(frozen=True)
class PretrainSettings:
    """Two runs with equal settings and images are the same run."""

    _: KW_ONLY
    vit: str = option(
        "timm ViT to start from; the next options change its sizes.",
        "vit_tiny_patch16_224",
        panel=_NETWORK,
    )
    image_size: int = option("Images are resized to this height and width.", 28, panel=_NETWORK)
    patch_size: int = option("Height and width of a patch in pixels.", 4, panel=_NETWORK, least=1)
    dim: int = option("Width of a token, a multiple of 4 and of --heads.", 128, panel=_NETWORK)
    depth: int = option("Blocks of the encoder.", 4, panel=_NETWORK, least=1)
    heads: int = option("Attention heads of a block.", 4, panel=_NETWORK, least=1)
    decoder_dim: int = option("Width of the decoder, a multiple of 4.", 64, panel=_NETWORK)
    decoder_depth: int = option("Blocks of the decoder.", 1, panel=_NETWORK, least=1)
    mask_ratio: float = option(
        "Share of patches that the encoder does not see.", 0.75, panel=_TRAINING
    )
    epochs: int = option("Passes over the images.", 36, panel=_TRAINING, least=1)
    batch_size: int = option("Images in a step.", 128, panel=_TRAINING, least=1)
    learning_rate: float = option("Peak of the learning rate.", 1e-3, panel=_TRAINING)
    warmup_epochs: float = option(
        "Epochs over which the rate rises to its peak, at most half of all.",
        1.0,
        panel=_TRAINING,
        least=0,
    )
    weight_decay: float = option(
        "Weight decay of AdamW, on matrices.", 0.05, panel=_TRAINING, least=0
    )
    least_crop: float = option(
        "Least share of the area that a random crop keeps; 1 for no crops.", 0.8, panel=_TRAINING
    )
    normalization: str = option("half (0.5/0.5) or imagenet.", "half", panel=_TRAINING)
    seed: int = option("Seed of weights, masks, orders and crops.", 0, panel=_TRAINING)

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
        """Refuse settings that cannot train anything.

        Raises:
            PrepError: with one sentence that names the setting.
        """
        check_seed(self.seed)
        check_bounds(self)
        for name, width in (("dim", self.dim), ("decoder-dim", self.decoder_dim)):
            if width < 4 or width % 4:
                raise PrepError(f"--{name} must be a multiple of 4, not {width}.")
        if self.dim % self.heads:
            raise PrepError(f"A width of {self.dim} cannot be shared by {self.heads} heads.")
        if not 0 < self.mask_ratio < 1:
            raise PrepError(
                f"--mask-ratio must be above 0 and below 1, not {self.mask_ratio}: without dropped "
                "patches there is nothing to learn."
            )
        if not 0 < self.least_crop <= 1:
            raise PrepError(f"--least-crop must be above 0 and at most 1, not {self.least_crop}.")
        if not 0 < self.learning_rate < math.inf:
            raise PrepError(f"--learning-rate must be above 0, not {self.learning_rate}.")
