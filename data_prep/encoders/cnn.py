"""A frozen timm CNN that sees dropped patches as black pixels and returns its pooled features.

This is the paper's comparison (Kariotakis et al., CPAL 2024, PMLR 234:554-569, ResNet-50). A CNN
cannot leave a patch out, so it saves no work. The paper zeroes the masked pixels; here that is done
before the pixels are scaled: dropped patches are black, as they are in images of which only the
kept patches were stored, and the two give the same token. Unlike the authors, who ran BatchNorm
with the statistics of each batch, the network is in eval mode: a token depends on its image alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.encoders.frozen import FixedMask, FrozenNetwork
from data_prep.encoders.timm import ACCEPTED, architecture
from data_prep.masks.kinds import Grid
from flower_ist.errors import first_line
from flower_ist.tokens.meta import Encoder

PATCH_SIZE = 16
"""Height and width in pixels of the patches that are dropped, where none is asked for: a ViT's."""


class PooledEncoder:
    """Encodes batches of masked images with a frozen CNN: the mean of its last map over space.

    It also runs what the network has between its pooling and its classifier (ConvNeXt's norm,
    MobileNetV3's last layer): the features are those that timm's own ``forward`` gives.

    Attributes:
        record: What a shard's meta data say about this encoder.
        grid: Rows and columns of patches.
        dim: Width D of a token.

    Args:
        model: A timm CNN without a classifier, with ``global_pool="avg"``; it is changed in
            place.
        image_size: Height and width of the input in pixels.
        patch_size: Height and width of a patch in pixels; it divides the image size.
        normalization: As :class:`FrozenNetwork` has it, like device and dtype.
        device: Where torch runs it.
        dtype: Of weights and activations.
        name: What the record calls it.
        weights_sha256: Hash of its weights.

    Raises:
        PrepError: the model, or one of the options for this model, cannot be used.
    """

    def __init__(
        self,
        model: Any,
        image_size: int,
        patch_size: int = PATCH_SIZE,
        normalization: str = "model",
        device: str = "cpu",
        *,
        dtype: str = "float32",
        name: str = "",
        weights_sha256: str = "",
    ) -> None:
        if patch_size < 1 or image_size < patch_size or image_size % patch_size:
            raise PrepError(
                f"An image size of {image_size} pixels is no multiple of patches of {patch_size}."
            )
        self.dim = _feature_width(model, image_size)
        self.grid: Grid = (image_size // patch_size, image_size // patch_size)
        self._patch_size = patch_size
        self._network = FrozenNetwork(model, normalization, device, dtype)
        self.record = Encoder(
            name=name,
            weights_sha256=weights_sha256,
            image_size=image_size,
            patch_size=patch_size,
            pool="mean",
            normalization=self._network.normalization,
            dtype=dtype,
            device=self._network.device.type,
        )

    def encode(self, pixels: torch.Tensor, kept: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the pooled features (B, D) of pixels (B, 3, S, S) uint8.

        ``kept`` (B, k) are the patches, in row order, whose pixels are not set to 0.

        Raises:
            PrepError: the device is out of memory, or lacks an operation in this dtype.
        """
        masked = blacken(pixels, torch.from_numpy(kept), self.grid, self._patch_size)
        return self._network.run(self._network.model, masked)

    def fixed(self, kept: NDArray[np.int64]) -> FixedMask:
        """Return this encoder for the same patches (k,) of every image, to be exported."""
        whole = torch.ones(1, 1, *(side * self._patch_size for side in self.grid))
        seen = blacken(whole, torch.from_numpy(kept[None]), self.grid, self._patch_size)

        def token(pixels: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self._network.model(self._network.scale(pixels * seen))
            return features

        return FixedMask(self._network.model, torch.from_numpy(kept), token)


def blacken(pixels: torch.Tensor, kept: torch.Tensor, grid: Grid, patch_size: int) -> torch.Tensor:
    """Return pixels (B, 3, S, S) uint8 with 0 outside the patches ``kept`` (B, k)."""
    seen = torch.zeros(len(kept), grid[0] * grid[1], dtype=pixels.dtype).scatter_(1, kept, 1)
    seen = seen.view(-1, 1, *grid).repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    return pixels * seen.to(pixels.device)


def _feature_width(model: Any, image_size: int) -> int:
    """Run one black image and return the width of its features.

    Raises:
        PrepError: the image is too small, or the network does not end in a map.
    """
    black = torch.zeros(1, 3, image_size, image_size)
    model.eval()
    name = architecture(model)
    try:
        with torch.inference_mode():
            last = model.forward_features(black)
            features = model.forward_head(last)
    except (RuntimeError, ValueError, AssertionError, AttributeError) as err:
        raise PrepError(
            f"{name} cannot read images of {image_size} pixels: {first_line(err)}."
        ) from err
    # Transformers end in (B, tokens, C), or with the channels last.
    if not isinstance(last, torch.Tensor) or last.ndim != 4 or last.shape[1] != model.num_features:
        raise PrepError(f"Patches cannot be dropped for {name}: {ACCEPTED}.")
    return int(features.shape[1])
