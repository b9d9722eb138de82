"""A network that is only read: on a device, in a number type, behind the scaling of its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from flower_ist.errors import first_line

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Number types of weights and activations, by the name a shard's meta data carry."""
Rgb = tuple[float, float, float]

NORMALIZATIONS: dict[str, tuple[Rgb, Rgb]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of RGB in [0, 1], by the name a shard's meta data carry."""


class FrozenNetwork:
    """A network in eval mode without gradients, and the scaling of its input.

    Args:
        model: Any torch module; it is changed in place.
        normalization: As :func:`resolve_normalization` reads it.
        device: ``cpu``, ``cuda``, ``mps`` or another that torch knows.
        dtype: A name in ``DTYPES``, for weights and activations alike. The two half types are for
            GPUs: a CPU without units for them is several times slower than in float32.

    Raises:
        PrepError: the normalization, device or dtype cannot be used.
    """

    def __init__(
        self, model: Any, normalization: str = "model", device: str = "cpu", dtype: str = "float32"
    ) -> None:
        if dtype not in DTYPES:
            raise PrepError(
                f"The number type {dtype!r} is unknown: use one of {', '.join(DTYPES)}."
            )
        self.normalization = resolve_normalization(
            normalization, getattr(model, "pretrained_cfg", None)
        )
        self.dtype = dtype
        try:
            self.device = torch.device(device)
            self.model = model.requires_grad_(False).eval().to(self.device, DTYPES[dtype])
        except (RuntimeError, AssertionError) as err:
            raise PrepError(f"The device {device!r} cannot be used: {first_line(err)}.") from err
        # Pixels are scaled in float32: rounding to a half type comes once, at the very end.
        mean, deviation = (
            torch.tensor(v, device=self.device) for v in normalization_values(self.normalization)
        )
        self._mean, self._deviation = mean.view(1, 3, 1, 1), deviation.view(1, 3, 1, 1)

    def scale(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (B, 3, S, S) into the network's input, on its device, in its dtype."""
        unit = pixels.to(self.device, torch.float32) / 255
        return ((unit - self._mean) / self._deviation).to(DTYPES[self.dtype])

    def run(
        self, forward: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor
    ) -> NDArray[np.float32]:
        """Return ``forward`` of the scaled pixels as float32, computed without a graph.

        Raises:
            PrepError: the device is out of memory, or lacks an operation in this dtype.
        """
        try:
            with torch.inference_mode():
                return forward(self.scale(pixels)).float().cpu().numpy()
        except torch.cuda.OutOfMemoryError as err:
            raise PrepError(
                f"{len(pixels)} images at once do not fit in the memory of {self.device}: use a "
                "smaller batch size."
            ) from err
        except RuntimeError as err:
            # torch names an operation it lacks in this way, without a type of error of its own.
            if "not implemented" not in str(err):
                raise
            raise PrepError(
                f"{self.device} cannot run this network in {self.dtype} ({first_line(err)}): use "
                "float32."
            ) from err


class FixedMask(torch.nn.Module):
    """A network that reads the same patches of every image: pixels (B, 3, S, S) -> tokens (B, D).

    Args:
        network: In eval mode; its weights are the module's.
        kept: (k,) patches in row order.
        token: Computes tokens from pixels, as numbers of 0 to 255, and patches (B, k).
    """

    kept: torch.Tensor

    def __init__(
        self,
        network: torch.nn.Module,
        kept: torch.Tensor,
        token: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__()
        self.network = network
        self._token_of = token
        self.register_buffer("kept", kept)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the tokens."""
        return self._token_of(pixels, self.kept.expand(pixels.shape[0], -1))


def resolve_normalization(name: str, config: Mapping[str, Any] | None = None) -> str:
    """Return the name to record: one of ``NORMALIZATIONS`` or ``mean/deviation`` in numbers.

    Args:
        name: A name in ``NORMALIZATIONS``; six numbers as in ``0.4,0.4,0.4/0.2,0.2,0.2``; or
            ``model`` for what the network's configuration says.
        config: timm's configuration of the network, with ``mean`` and ``std``.

    Raises:
        PrepError: the name is unknown, or the configuration lacks the numbers.
    """
    if name == "model":
        wanted = (tuple((config or {}).get("mean", ())), tuple((config or {}).get("std", ())))
        if [len(part) for part in wanted] != [3, 3]:
            raise PrepError(
                "The model's configuration names no normalization: choose imagenet or half."
            )
    else:
        wanted = normalization_values(name)
    # One spelling for equal numbers: it tells whether two shards' tokens live in one space.
    known = [key for key, numbers in NORMALIZATIONS.items() if numbers == wanted]
    return known[0] if known else "/".join(",".join(str(float(x)) for x in part) for part in wanted)


def normalization_values(name: str) -> tuple[Rgb, Rgb]:
    """Return the mean and standard deviation of RGB that a resolved name stands for.

    Raises:
        PrepError: the name is unknown, or its numbers are out of range.
    """
    if name in NORMALIZATIONS:
        return NORMALIZATIONS[name]
    try:
        mean, deviation = (tuple(map(float, part.split(","))) for part in name.split("/"))
        (r, g, b), (dr, dg, db) = mean, deviation
    except ValueError:
        raise PrepError(
            f"The normalization {name!r} is unknown: use one of "
            f"{', '.join(['model', *NORMALIZATIONS])} or six numbers, mean/deviation."
        ) from None
    if not all(map(math.isfinite, (r, g, b))) or not all(0 < d < math.inf for d in (dr, dg, db)):
        raise PrepError(f"The normalization {name!r} needs finite means and deviations above 0.")
    return (r, g, b), (dr, dg, db)
