"""The one place that imports timm: build a network by name, and get its published weights.

timm's networks share attributes but no typed base class, so they are ``Any`` here.
"""

from __future__ import annotations

from typing import Any

import torch

from data_prep import PrepError
from data_prep.encoders.torchvision_guard import guard_torchvision
from data_prep.errors import cause_of
from flower_ist.errors import first_line

guard_torchvision()

import timm  # noqa: E402  (after the guard, which its import of torchvision may need)
from timm.layers.patch_embed import PatchEmbed  # noqa: E402
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed  # noqa: E402
from timm.models import is_model_in_modules  # noqa: E402
from timm.models.beit import Beit  # noqa: E402
from timm.models.eva import Eva  # noqa: E402
from timm.models.naflexvit import NaFlexVit  # noqa: E402
from timm.models.vision_transformer import Block, VisionTransformer  # noqa: E402

__all__ = [
    "ACCEPTED",
    "Beit",
    "Block",
    "Eva",
    "NaFlexVit",
    "PatchEmbed",
    "VisionTransformer",
    "architecture",
    "build_sincos2d_pos_embed",
    "create",
    "default_size",
    "has_vit",
    "published",
]

ACCEPTED = (
    "use a timm VisionTransformer, Eva, Beit or NaFlexVit that cuts patches by one linear map, "
    "or a CNN that ends in a map of features"
)
"""How a sentence about an unusable network ends."""


def has_vit(name: str) -> bool:
    """Return whether timm builds ``name`` as one of its plain vision transformers."""
    return bool(
        is_model_in_modules(name, ("vision_transformer", "deit", "eva", "beit", "naflexvit"))
    )


def default_size(name: str) -> int:
    """Return the height in pixels that timm's configuration of ``name`` asks for.

    Raises:
        PrepError: timm knows no such model or tag.
    """
    _check_name(name)
    try:
        size: Any = timm.get_pretrained_cfg_value(name, "input_size")
    except RuntimeError as err:
        raise PrepError(f"timm knows no weights {name!r}: see timm.list_pretrained().") from err
    return int(size[1])


def architecture(model: Any) -> str:
    """Return timm's name of a model, or its class's where it was not built by name."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return config.get("architecture") or type(model).__name__


def create(name: str, seed: int, **kwargs: Any) -> Any:
    """Build timm's ``name`` without a classifier, its weights drawn from ``seed``.

    torch's own generator is left as it was.

    Raises:
        PrepError: timm knows no such model or tag, or cannot build it with ``kwargs``.
    """
    _check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return timm.create_model(name, num_classes=0, **kwargs)
        except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as err:
            options = ", ".join(f"{key}={value}" for key, value in kwargs.items()) or "no options"
            raise PrepError(f"timm cannot build {name} with {options}: {first_line(err)}.") from err


def published(name: str) -> Any:
    """Return timm's ``name`` with its published weights, at the size they were trained for.

    They come from the Hugging Face hub or its cache on this disk, never from a pickle.

    Raises:
        PrepError: the model has no published weights, or they cannot be fetched.
    """
    _check_name(name)
    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as err:
        raise PrepError(
            f"The published weights of {name} cannot be fetched ({cause_of(err)}): give a "
            "checkpoint file, or an encoder that comes with its weights."
        ) from err


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        raise PrepError(f"timm knows no model {name!r}: see timm.list_models().")
