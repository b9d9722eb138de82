"""A masked autoencoder in training: its epochs, its state on disk, and how it draws images.

Follows He et al. (CVPR 2022, https://arxiv.org/abs/2111.06377, appendix A.1): AdamW with betas 0.9
and 0.95, a linear rise and half a cosine, random resized crops and mirror images. Everything drawn
follows from (seed, epoch), so that a run that was stopped resumes with the same draws.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.encoders.frozen import NORMALIZATIONS
from data_prep.encoders.vit import build_vit
from data_prep.images.image_set import ImageSet
from data_prep.images.prefetch import prefetch
from data_prep.masks.draw import draw_mask
from data_prep.masks.names import make_mask
from data_prep.pretrain.augment import crop_and_flip
from data_prep.pretrain.mae import MaskedAutoencoder, patchify, unpatchify
from data_prep.pretrain.settings import PretrainSettings
from data_prep.splits.rows import permutation
from flower_ist.differences import differences
from flower_ist.errors import first_line, why_unreadable
from flower_ist.files import write_file

_FIRST_ORDER = 1000
"""Stream of the first epoch's order; the streams below it are those of splits."""
_CROPS = 1_000_003
"""Keeps the crops of neighboring seeds apart."""
_WORKERS = 1
_HEAD_WIDTH = 32
_DAMAGED = (
    *(OSError, EOFError, pickle.UnpicklingError, RuntimeError),
    *(LookupError, TypeError, ValueError),
)
"""What reading a damaged state raises."""


class Pretraining:
    """A model, its optimizer and the number of epochs they were trained.

    Args:
        settings: How to train.
        device: ``cpu``, ``cuda`` (in bfloat16) or another that torch knows.

    Raises:
        PrepError: a setting or the device cannot be used.
    """

    def __init__(self, settings: PretrainSettings, device: str = "cpu") -> None:
        settings.check()
        if settings.normalization not in NORMALIZATIONS:
            raise PrepError(
                f"The normalization {settings.normalization!r} is unknown: use one of "
                f"{', '.join(NORMALIZATIONS)}."
            )
        self.settings = settings
        self.epoch = 0
        encoder = build_vit(
            settings.vit, settings.image_size, seed=settings.seed, **settings.vit_sizes()
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = MaskedAutoencoder(
                encoder,
                settings.decoder_dim,
                settings.decoder_depth,
                max(1, settings.decoder_dim // _HEAD_WIDTH),
            )
        patches = math.prod(self.model.grid)
        self.mask = make_mask("random", settings.mask_ratio, settings.seed, patches)
        try:
            self.model.to(device)
        except (RuntimeError, AssertionError) as err:
            raise PrepError(f"The device {device!r} cannot be used: {first_line(err)}.") from err
        self.device = torch.device(device)
        self.optimizer = _optimizer(self.model, settings)
        mean, std = NORMALIZATIONS[settings.normalization]
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    def train_epoch(self, data: ImageSet) -> Iterator[tuple[int, float]]:
        """Train on every image once and yield ``(images, loss)`` of each step.

        Raises:
            PrepError: an image cannot be read, or the loss is no longer a number.
        """
        settings, epoch = self.settings, self.epoch
        order = permutation(len(data), settings.seed, _FIRST_ORDER + epoch)
        generator = torch.Generator().manual_seed((settings.seed * _CROPS + epoch) % 2**63)
        starts = range(0, len(data), settings.batch_size)

        def batch(start: int) -> tuple[torch.Tensor, NDArray[np.int64]]:
            images = data.take(order[start : start + settings.batch_size])
            pixels = images.network_input(settings.image_size)
            return pixels, draw_mask(self.mask, images.image_ids, epoch)

        self.model.train()
        for step, (pixels, kept) in enumerate(prefetch(batch, starts, _WORKERS)):
            rate = settings.learning_rate_at(epoch + step / len(starts))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            cropped = crop_and_flip(pixels.float() / 255, settings.least_crop, generator)
            with self._autocast():
                loss = self.model(self._normalize(cropped), kept)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            value = loss.item()
            if not math.isfinite(value):
                raise PrepError(
                    f"The loss became {value} in epoch {epoch + 1}: use a lower learning rate."
                )
            yield len(pixels), value
        self.epoch += 1

    def reconstruct(self, data: ImageSet) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return images, what the encoder sees of them, and that with the decoder's patches.

        Each is (B, 3, S, S) in [0, 1]; dropped patches are gray in the second. The decoder draws
        normalized patches: they get the true patches' mean and deviation back.
        """
        kept = draw_mask(self.mask, data.image_ids)
        pixels = data.network_input(self.settings.image_size).float() / 255
        pixels = self._normalize(pixels)
        self.model.eval()
        with torch.inference_mode(), self._autocast():
            drawn = self.model.reconstruct(pixels, kept).float()
        patches = patchify(pixels, self.model.patch_size)
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        shown = torch.zeros(*patches.shape[:2], 1, dtype=torch.bool, device=self.device)
        shown.scatter_(1, torch.from_numpy(kept).to(self.device).unsqueeze(-1), True)
        seen = torch.where(shown, patches, torch.zeros_like(patches))
        completed = torch.where(shown, patches, drawn * variance.sqrt() + mean)
        whole, part, guess = (
            (unpatchify(p, self.model.grid, self.model.patch_size) * self._std + self._mean)
            .clamp(0, 1)
            .cpu()
            for p in (patches, seen, completed)
        )
        return whole, part, guess

    def save(self, file: Path, facts: Mapping[str, Any], lines: list[dict[str, Any]]) -> None:
        """Write model, optimizer, facts and the log's lines as one file, complete or not at all.

        Raises:
            NotWrittenError: the file cannot be written.
        """
        state = {
            "facts": dict(facts),
            "lines": lines,
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        content = BytesIO()  # on a full disk torch's own writer fails with another error
        torch.save(state, content)
        write_file(file, content.getvalue())

    def load(self, file: Path, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Go on from a file that :meth:`save` wrote; return the log's lines.

        No pickled code is run: the file may hold tensors, numbers and texts only.

        Raises:
            PrepError: the file is damaged, or one of the facts was another.
        """
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            _check_same(file, state["facts"], facts)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch = state["epoch"]
            return list(state["lines"])
        except _DAMAGED as err:
            raise PrepError(
                f"{file} cannot be read: {why_unreadable(file, err)}; remove it to start again."
            ) from err

    def _normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels.to(self.device) - self._mean) / self._std

    def _autocast(self) -> torch.autocast:
        cuda = self.device.type == "cuda"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=cuda)


def _check_same(file: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse the state of another run."""
    if differ := differences(found, wanted):
        raise PrepError(
            f"{file} is of another run ({differ}): give the same command again, or choose another "
            "folder to start a new run."
        )


def _optimizer(model: torch.nn.Module, settings: PretrainSettings) -> torch.optim.AdamW:
    # As in MAE, biases, norms, positions and tokens do not decay.
    decayed = [p for p in model.parameters() if p.ndim in (2, 4)]
    others = [p for p in model.parameters() if p.ndim not in (2, 4)]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)
