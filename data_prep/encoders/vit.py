"""A frozen timm ViT that reads only the kept patches of an image and returns one token.

timm's ``VisionTransformer`` embeds all patches, adds positions, puts the class token (and any
register tokens) in front, and then calls ``patch_drop``: a module that does nothing outside
training. Putting a gather there gives MAE's masking, exactly: every block then runs on the prefix
tokens and the kept patches only. timm's ``Eva`` also asks its ``patch_drop`` which patches were
kept, and rotates those by their own positions. The convolution that embeds patches is replaced as
well, by one that leaves dropped patches at zero: for all patches it would be 6 % of ViT-B/16's work
at a mask ratio of .9.

This is right only where a patch's embedding depends on its own pixels, so a ViT behind a CNN stem
is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.encoders.frozen import FixedMask, FrozenNetwork
from data_prep.encoders.timm import (
    ACCEPTED,
    Eva,
    PatchEmbed,
    VisionTransformer,
    architecture,
    create,
)
from data_prep.masks.kinds import Grid
from flower_ist.tokens.meta import Encoder

POOLS = ("cls", "mean")


class KeptPatches(torch.nn.Module):
    """Gathers the kept patches of (B, prefix + L, D); sits in a ViT's ``patch_drop``."""

    def __init__(self, num_prefix_tokens: int) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> Any:
        """Return (B, prefix + kept, D): the prefix tokens and the patches in ``self.kept``."""
        if self.kept is None:
            return x
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        index = self.kept.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return torch.cat([prefix, patches.gather(1, index)], dim=1)


class KeptPatchesWithIndices(KeptPatches):
    """The same for Eva, which takes the indices back to rotate the kept patches."""

    def forward(self, x: torch.Tensor) -> Any:
        """Return the gathered tokens and ``self.kept`` (B, k)."""
        return super().forward(x), self.kept


class KeptProjection(torch.nn.Module):
    """Embeds the kept patches only; sits in the place of a ``patch_embed.proj``."""

    def __init__(self, whole: torch.nn.Conv2d, grid: Grid) -> None:
        super().__init__()
        self.weight, self.bias = whole.weight, whole.bias
        self.grid = grid
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, D, rows, columns) of pixels (B, 3, S, S); dropped patches are 0."""
        (rows, columns), size = self.grid, self.weight.shape[-1]
        if self.kept is None or self.kept.shape[1] == rows * columns:
            return torch.nn.functional.conv2d(x, self.weight, self.bias, stride=size)
        # A view (B, rows, columns, 3, P, P): indexing copies the kept patches and no others.
        patches = x.reshape(-1, 3, rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
        image = torch.arange(len(x), device=x.device).unsqueeze(1)
        seen = patches[image, self.kept // columns, self.kept % columns].flatten(2)
        embedded = torch.nn.functional.linear(seen, self.weight.flatten(1), self.bias)
        whole = embedded.new_zeros(len(x), rows * columns, len(self.weight))
        whole[image, self.kept] = embedded
        return whole.transpose(1, 2).reshape(len(x), -1, rows, columns)


class TokenEncoder:
    """Encodes batches of masked images with a frozen ViT.

    The token is what timm's own head would get, of the kept patches: ``norm`` on every token, then
    the pooling, then ``fc_norm``. A model has one of the two norms and the identity for the other:
    ``fc_norm`` where it was trained on the mean of its patches.

    Attributes:
        record: What a shard's meta data say about this encoder.
        grid: Rows and columns of patches.
        dim: Width D of a token.

    Args:
        model: A timm VisionTransformer or Eva; it is changed in place.
        normalization: As :class:`FrozenNetwork` has it, like device and dtype.
        device: Where torch runs it.
        pool: ``cls``, or ``mean`` of the kept patches without class and register tokens.
        layer: Blocks to run, 1 to the model's depth, the final norm after them; 0 for all.
        dtype: Of weights and activations.
        name: What the record calls it.
        weights_sha256: Hash of its weights.

    Raises:
        PrepError: the model, or one of the options for this model, cannot be used.
    """

    def __init__(
        self,
        model: Any,
        normalization: str = "model",
        device: str = "cpu",
        *,
        pool: str = "cls",
        layer: int = 0,
        dtype: str = "float32",
        name: str = "",
        weights_sha256: str = "",
    ) -> None:
        _check(model, pool, layer)
        image_size, patch_size = _square(model)
        self.grid: Grid = tuple(model.patch_embed.grid_size)
        self.dim = int(model.embed_dim)
        self._pool = pool
        self._gather = (KeptPatchesWithIndices if isinstance(model, Eva) else KeptPatches)(
            model.num_prefix_tokens
        )
        model.patch_drop = self._gather
        self._project = KeptProjection(model.patch_embed.proj, self.grid)
        model.patch_embed.proj = self._project
        if layer == len(model.blocks):
            layer = 0  # the same network under another number
        # Blocks that are not run take no memory on the device either.
        model.blocks = model.blocks[: layer or None]
        self._network = FrozenNetwork(model, normalization, device, dtype)
        self.record = Encoder(
            name=name,
            weights_sha256=weights_sha256,
            image_size=image_size,
            patch_size=patch_size,
            pool=pool,
            normalization=self._network.normalization,
            layer=layer,
            dtype=dtype,
            device=self._network.device.type,
        )

    def encode(self, pixels: torch.Tensor, kept: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return one token per image, (B, D), of pixels (B, 3, S, S) uint8.

        ``kept`` (B, k) are the patches to read, in row order.

        Raises:
            PrepError: the device is out of memory, or lacks an operation in this dtype.
        """
        self._gather.kept = self._project.kept = torch.from_numpy(kept).to(self._network.device)
        return self._network.run(self._token, pixels)

    def fixed(self, kept: NDArray[np.int64]) -> FixedMask:
        """Return this encoder for the same patches (k,) of every image, to be exported."""

        def token(pixels: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
            # All patches are embedded: gathering theirs would be more nodes than it saves work.
            self._gather.kept, self._project.kept = patches, None
            return self._token(self._network.scale(pixels))

        return FixedMask(self._network.model, torch.from_numpy(kept), token)

    def _token(self, x: torch.Tensor) -> torch.Tensor:
        model = self._network.model
        tokens = model.forward_features(x)
        if self._pool == "cls":
            pooled = tokens[:, 0]
        else:
            pooled = tokens[:, model.num_prefix_tokens :].mean(dim=1)
        return model.fc_norm(pooled)  # type: ignore[no-any-return]


def build_vit(name: str, image_size: int, *, seed: int = 0, **kwargs: Any) -> Any:
    """Build timm's ViT ``name`` for an image size, its weights drawn from ``seed``.

    Layer scale is set to 1 instead of DINOv2's 1e-5: a random network would otherwise return the
    same token for every image. A checkpoint overwrites it.

    Args:
        name: A timm model.
        image_size: Height and width in pixels, a multiple of the patch size.
        seed: Of the weights.
        kwargs: timm's own options of that model, such as ``depth`` or ``patch_size``.

    Returns:
        A timm VisionTransformer or Eva without a classifier.

    Raises:
        PrepError: timm has no such ViT, or the image size is no multiple of its patch size.
    """
    model = create(name, seed, img_size=image_size, **kwargs)
    if not isinstance(model, (VisionTransformer, Eva)):
        raise PrepError(f"{name} is not a plain timm VisionTransformer: {ACCEPTED}.")
    patch = model.patch_embed.patch_size[0]
    if image_size < patch or image_size % patch:
        raise PrepError(
            f"An image size of {image_size} pixels is no multiple of {name}'s patches of {patch}."
        )
    for parameter, value in model.named_parameters():
        if parameter.endswith((".ls1.gamma", ".ls2.gamma", ".gamma_1", ".gamma_2")):
            torch.nn.init.ones_(value)
    return model


def _check(model: Any, pool: str, layer: int) -> None:
    embed = getattr(model, "patch_embed", None)
    if not isinstance(model, (VisionTransformer, Eva)) or type(embed) is not PatchEmbed:
        raise PrepError(f"Patches cannot be dropped inside {architecture(model)}: {ACCEPTED}.")
    if pool not in POOLS:
        raise PrepError(f"The pooling {pool!r} is unknown: use {' or '.join(POOLS)}.")
    if pool == "cls" and model.cls_token is None:
        raise PrepError("The encoder has no class token: use mean pooling, or a ViT with one.")
    if not 0 <= layer <= len(model.blocks):
        raise PrepError(
            f"The encoder has {len(model.blocks)} blocks: the layer must be 0 (all) to "
            f"{len(model.blocks)}, not {layer}."
        )


def _square(model: Any) -> tuple[int, int]:
    (height, width), (rows, columns) = model.patch_embed.img_size, model.patch_embed.patch_size
    if (height, rows) != (width, columns):
        raise PrepError("The encoder must take square images in square patches.")
    return int(height), int(rows)
