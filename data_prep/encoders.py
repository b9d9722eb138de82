"""A frozen timm ViT that reads only the kept patches of an image and returns its CLS token.

timm's ``VisionTransformer.forward_features`` embeds all patches, adds positions, puts the class
token (and any register tokens) in front, and then calls ``patch_drop``: a module that does nothing
outside training. Putting a gather there gives MAE's masking, exactly: every block then runs on the
prefix tokens and the kept patches only.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from data_prep import PrepError
from data_prep.mask_kinds import Grid
from data_prep.torchvision_guard import guard_torchvision

guard_torchvision()

import timm  # noqa: E402  (after the guard, which its import of torchvision may need)
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn  # noqa: E402

NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of RGB in [0, 1], by the name a shard's meta data carry."""


class KeptPatches(torch.nn.Module):
    """Gathers the kept patches of (B, prefix + L, D); sits in a ViT's ``patch_drop``."""

    def __init__(self, num_prefix_tokens: int) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, prefix + kept, D): the prefix tokens and the patches in ``self.kept``."""
        if self.kept is None:
            return x
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        index = self.kept.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return torch.cat([prefix, patches.gather(1, index)], dim=1)


class TokenEncoder:
    """Encodes batches of masked images with a frozen ViT.

    Attributes:
        grid: Rows and columns of patches.
        dim: Width D of a token.
        image_size: Height and width of the input in pixels.
        patch_size: Height and width of a patch in pixels.
        normalisation: A name in ``NORMALISATIONS``.
    """

    def __init__(
        self, model: VisionTransformer, normalisation: str = "model", device: str = "cpu"
    ) -> None:
        if getattr(model, "cls_token", None) is None:
            raise PrepError("The encoder has no class token: choose a ViT with one.")
        self.normalisation = _resolve_normalisation(model, normalisation)
        self.image_size, width = model.patch_embed.img_size
        self.patch_size, patch_width = model.patch_embed.patch_size
        if (width, patch_width) != (self.image_size, self.patch_size):
            raise PrepError("The encoder must take square images in square patches.")
        self.grid: Grid = model.patch_embed.grid_size
        self.dim = int(model.embed_dim)
        self._gather = KeptPatches(model.num_prefix_tokens)
        model.patch_drop = self._gather  # type: ignore[assignment]
        try:
            self._model = model.requires_grad_(False).eval().to(device)
        except (RuntimeError, AssertionError) as err:
            reason = str(err).splitlines()[0].rstrip(".")
            raise PrepError(f"The device {device!r} cannot be used: {reason}.") from err
        mean, std = (torch.tensor(v, device=device) for v in NORMALISATIONS[self.normalisation])
        self._mean, self._std = mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)

    def encode(self, pixels: torch.Tensor, kept: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the class tokens after the final norm, (B, D) float32.

        Args:
            pixels: (B, 3, image_size, image_size) float32 in [0, 1].
            kept: (B, k) indices of the patches to read, in row order.
        """
        device = self._mean.device
        with torch.inference_mode():
            self._gather.kept = torch.from_numpy(kept).to(device)
            tokens = self._model.forward_features((pixels.to(device) - self._mean) / self._std)
        return tokens[:, 0].float().cpu().numpy()


def build_vit(name: str, image_size: int, *, seed: int = 0) -> VisionTransformer:
    """Build timm's ViT ``name`` for an image size, its weights drawn from ``seed``.

    Layer scale is set to 1 instead of DINOv2's 1e-5: a random network would otherwise return the
    same token for every image. A checkpoint overwrites it.

    Raises:
        PrepError: timm has no such ViT, or the image size is no multiple of its patch size.
    """
    if not timm.is_model(name):
        raise PrepError(f"timm knows no model {name!r}: see timm.list_models('vit_*').")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = timm.create_model(name, img_size=image_size, num_classes=0, global_pool="token")
        except (TypeError, AssertionError) as err:
            raise PrepError(f"{name} cannot be built for {image_size} pixels: {err}.") from err
    if not isinstance(model, VisionTransformer):
        raise PrepError(f"{name} is not a plain timm VisionTransformer: choose a vit_* model.")
    patch = model.patch_embed.patch_size[0]
    if image_size < patch or image_size % patch:
        raise PrepError(
            f"An image size of {image_size} pixels is no multiple of {name}'s patches of {patch}."
        )
    for parameter, value in model.named_parameters():
        if parameter.endswith((".ls1.gamma", ".ls2.gamma")):
            torch.nn.init.ones_(value)
    return model


def load_weights(model: VisionTransformer, file: Path) -> str:
    """Load a safetensors checkpoint, positions resampled to the image size; return its SHA-256.

    Weights of a classifier head are left out. Half-precision weights become float32.

    Raises:
        PrepError: the file is missing, is not safetensors, or does not fit the model.
    """
    if file.suffix != ".safetensors" or not file.is_file():
        raise PrepError(f"There is no .safetensors checkpoint at {file}: check the path.")
    try:
        state = {name: tensor.float() for name, tensor in load_file(file).items()}
        state = checkpoint_filter_fn(state, model)
        state = {k: v for k, v in state.items() if not k.startswith("head.")}
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, KeyError) as err:
        reason = str(err).strip().splitlines()[-1].strip().rstrip(".")
        raise PrepError(f"{file} does not fit the encoder: {reason}.") from err
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def state_sha256(model: torch.nn.Module) -> str:
    """Return the SHA-256 over a model's tensors in order: names random weights as a file's does."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _resolve_normalisation(model: Any, name: str) -> str:
    if name in NORMALISATIONS:
        return name
    if name != "model":
        choices = ", ".join(["model", *NORMALISATIONS])
        raise PrepError(f"The normalisation {name!r} is unknown: use one of {choices}.")
    config = getattr(model, "pretrained_cfg", None) or {}
    wanted = (tuple(config.get("mean", ())), tuple(config.get("std", ())))
    for known, values in NORMALISATIONS.items():
        if values == wanted:
            return known
    raise PrepError("The model's configuration names no known normalisation: choose one yourself.")
