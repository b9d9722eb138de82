"""Open an encoder by its name or file; what every encoder can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.encoders.checkpoints import read_description
from data_prep.encoders.cnn import PATCH_SIZE, PooledEncoder
from data_prep.encoders.frozen import FixedMask
from data_prep.encoders.settings import EncoderSettings
from data_prep.encoders.timm import create, default_size, has_vit, published
from data_prep.encoders.vit import TokenEncoder, build_vit
from data_prep.encoders.weights import fit_weights, load_weights, state_sha256
from data_prep.masks.kinds import Grid
from flower_ist.tokens.meta import Encoder

EMBEDDED = Path(__file__).parent / "embedded" / "encoder.safetensors"
"""The encoder that comes with this package."""


class ImageEncoder(Protocol):
    """Turns masked images into tokens.

    Attributes:
        record: What a shard's meta data say about this encoder.
        grid: Rows and columns of patches.
        dim: Width D of a token.
    """

    record: Encoder
    grid: Grid
    dim: int

    def encode(self, pixels: torch.Tensor, kept: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return tokens (B, D) of pixels (B, 3, S, S) uint8 of which patches (B, k) are kept."""

    def fixed(self, kept: NDArray[np.int64]) -> FixedMask:
        """Return a module that reads the same patches (k,) of every image, to be exported."""


def open_encoder(
    settings: EncoderSettings, seed: int = 0, image_size: int | None = None
) -> ImageEncoder:
    """Build the encoder, load its weights and freeze it.

    Args:
        settings: which network, and how it is run.
        seed: Of random weights.
        image_size: Used in place of the encoder's own where none is asked for.

    Raises:
        PrepError: a setting is unknown, missing or does not fit the others.
    """
    file = _file_of(settings.encoder)
    name, kwargs = settings.encoder, dict[str, Any]()
    label, normalization, weights = name, settings.normalization, settings.weights
    if file is not None:
        described = read_description(file)
        name, kwargs = described["timm"], dict(described["kwargs"])
        label = described["label"] or name
        normalization = described["normalisation"] if normalization == "model" else normalization
    if weights == "random":
        label = f"{label}, random weights"
    own_size = kwargs.pop("img_size", None)
    size = image_size if settings.image_size is None else settings.image_size
    if size is None:
        size = own_size or default_size(name)
    if has_vit(name):
        if settings.patch_size is not None:
            kwargs["patch_size"] = settings.patch_size
        vit = build_vit(name, size, seed=seed, **kwargs)
        return TokenEncoder(
            vit,
            normalization,
            settings.device,
            pool=settings.pool,
            layer=settings.layer,
            dtype=settings.compute_dtype,
            name=label,
            weights_sha256=_load(vit, weights, name, file),
            image_size=size,
        )
    if settings.layer:
        raise PrepError(f"{name} is no ViT and always run whole: leave the layer at 0.")
    cnn = create(name, seed, global_pool="avg")
    return PooledEncoder(
        cnn,
        size,
        PATCH_SIZE if settings.patch_size is None else settings.patch_size,
        normalization,
        settings.device,
        dtype=settings.compute_dtype,
        name=label,
        weights_sha256=_load(cnn, weights, name, file),
    )


def _file_of(encoder: str) -> Path | None:
    if encoder == "embedded":
        if not EMBEDDED.is_file():
            raise PrepError(
                "This installation lacks the embedded encoder: make one with flower-ist pretrain."
            )
        return EMBEDDED
    return Path(encoder) if encoder.endswith(".safetensors") else None


def _load(model: Any, weights: str, name: str, file: Path | None) -> str:
    """Give the model its weights and return their hash."""
    if weights == "random":
        return state_sha256(model)
    if weights == "pretrained":
        if file is not None:
            raise PrepError(
                f"{file} comes with its own weights: leave out 'pretrained', which means timm's."
            )
        # Hashed as published, as resampled positions may differ in the last bit between machines.
        source = published(name)
        fit_weights(model, source.state_dict(), f"What timm publishes as {name}")
        return state_sha256(source)
    if weights:
        return load_weights(model, Path(weights))
    if file is None:
        raise PrepError(
            f"{name} needs weights: use pretrained (timm's, from the network), a checkpoint's "
            "path, or random."
        )
    return load_weights(model, file)
