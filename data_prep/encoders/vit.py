"""A frozen timm ViT that reads only the kept patches of an image and returns one token.

:mod:`data_prep.encoders.kept` says how.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.encoders.frozen import FixedMask, FrozenNetwork
from data_prep.encoders.kept import FAMILIES, KeptProjection, check_family, gather_kept
from data_prep.encoders.timm import ACCEPTED, NaFlexVit, create
from data_prep.masks.kinds import Grid
from flower_ist.tokens.meta import Encoder

POOLS = ("cls", "mean", "cls+mean", "map")


class TokenEncoder:
    """Encodes batches of masked images with a frozen ViT.

    The token is what timm's own head would get, of the kept patches: ``norm`` on every token, then
    the pooling, then ``fc_norm``. A model has one of the two norms and the identity for the other:
    ``fc_norm`` where it was trained on the mean of its patches. ``cls+mean`` puts the tokens of
    both poolings side by side.

    Attributes:
        record: What a shard's meta data say about this encoder.
        grid: Rows and columns of patches.
        dim: Width D of a token.

    Args:
        model: Of one of timm's classes in ``FAMILIES``; it is changed in place.
        normalization: As :class:`FrozenNetwork` has it, like device and dtype.
        device: Where torch runs it.
        pool: ``cls``; ``mean`` of the kept patches without class and register tokens; both; or
            ``map``, the network's own pooling by attention.
        layer: Blocks to run, 1 to the model's depth, the final norm after them; 0 for all.
        dtype: Of weights and activations.
        name: What the record calls it.
        weights_sha256: Hash of its weights.
        image_size: Height and width in pixels, where the model does not fix them.

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
        image_size: int = 0,
    ) -> None:
        _check(model, pool, layer)
        depth = len(model.blocks)
        image_size, patch_size = _square(model, image_size)
        self.grid: Grid = (image_size // patch_size, image_size // patch_size)
        self.dim = int(model.embed_dim) * (2 if pool == "cls+mean" else 1)
        self._pool = pool
        # Blocks that are not run take no memory on the device either, and need no gather.
        model.blocks = model.blocks[: layer or None]
        self._gathers = gather_kept(model, self.grid)
        if layer == depth:
            layer = 0  # the same network under another number
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
        indices = torch.from_numpy(kept).to(self._network.device)
        for gather in self._gathers:
            gather.kept = indices
        return self._network.run(self._token, pixels)

    def fixed(self, kept: NDArray[np.int64]) -> FixedMask:
        """Return this encoder for the same patches (k,) of every image, to be exported."""

        def token(pixels: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
            # All patches are embedded: gathering theirs would be more nodes than it saves work.
            for gather in self._gathers:
                gather.kept = None if isinstance(gather, KeptProjection) else patches
            return self._token(self._network.scale(pixels))

        return FixedMask(self._network.model, torch.from_numpy(kept), token)

    def _token(self, x: torch.Tensor) -> torch.Tensor:
        model = self._network.model
        tokens = model.forward_features(x)
        patches = tokens[:, model.num_prefix_tokens :]
        if self._pool == "map":
            return model.fc_norm(model.attn_pool(patches))  # type: ignore[no-any-return]
        pooled = {"cls": tokens[:, 0], "mean": patches.mean(dim=1)}
        return torch.cat([model.fc_norm(pooled[name]) for name in self._pool.split("+")], dim=1)


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
        A timm network of one of the ``FAMILIES``, without a classifier.

    Raises:
        PrepError: timm has no such ViT, or the image size is no multiple of its patch size.
    """
    model = create(name, seed, img_size=image_size, **kwargs)
    if not isinstance(model, FAMILIES):
        raise PrepError(f"{name} is not a plain timm VisionTransformer: {ACCEPTED}.")
    patch = _embedding(model).patch_size[0]
    if image_size < patch or image_size % patch:
        raise PrepError(
            f"An image size of {image_size} pixels is no multiple of {name}'s patches of {patch}."
        )
    for parameter, value in model.named_parameters():
        if parameter.endswith((".ls1.gamma", ".ls2.gamma", ".gamma_1", ".gamma_2")):
            torch.nn.init.ones_(value)
    return model


def _check(model: Any, pool: str, layer: int) -> None:
    check_family(model)
    if pool not in POOLS:
        raise PrepError(f"The pooling {pool!r} is unknown: use {' or '.join(POOLS)}.")
    own = getattr(model, "attn_pool", None) is not None
    has_class = (
        getattr(model, "cls_token", getattr(_embedding(model), "cls_token", None)) is not None
    )
    if pool.startswith("cls") and not has_class:
        remedy = "map, its own pooling, or mean" if own else "mean pooling, or a ViT with one"
        raise PrepError(f"The encoder has no class token: use {remedy}.")
    if pool == "map" and not own:
        raise PrepError("The encoder has no pooling by attention: use cls or mean.")
    if not 0 <= layer <= len(model.blocks):
        raise PrepError(
            f"The encoder has {len(model.blocks)} blocks: the layer must be 0 (all) to "
            f"{len(model.blocks)}, not {layer}."
        )


def _embedding(model: Any) -> Any:
    return model.embeds if isinstance(model, NaFlexVit) else model.patch_embed


def _square(model: Any, image_size: int) -> tuple[int, int]:
    """Return height and width of the image and of a patch."""
    rows, columns = _embedding(model).patch_size
    height, width = (
        (image_size,) * 2 if isinstance(model, NaFlexVit) else model.patch_embed.img_size
    )
    if (height, rows) != (width, columns):
        raise PrepError("The encoder must take square images in square patches.")
    return int(height), int(rows)
