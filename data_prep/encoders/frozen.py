"""A network that is only read: on a device, in a number type, behind its input scaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.encoders import normalization as norms
from data_prep.errors import first_line

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Number types of weights and activations, by the name a shard's meta data carry."""


class FrozenNetwork:
    """A network in eval mode without gradients, and the scaling of its input.

    Args:
        model: Any torch module; it is changed in place.
        normalization: As :func:`data_prep.encoders.normalization.resolve` reads it.
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
        self.normalization = norms.resolve(normalization, getattr(model, "pretrained_cfg", None))
        self.dtype = dtype
        try:
            self.device = torch.device(device)
            self.model = model.requires_grad_(False).eval().to(self.device, DTYPES[dtype])
        except (RuntimeError, AssertionError) as err:
            raise PrepError(f"The device {device!r} cannot be used: {first_line(err)}.") from err
        # Pixels are scaled in float32: rounding to a half type comes once, at the very end.
        mean, deviation = (
            torch.tensor(v, device=self.device) for v in norms.values(self.normalization)
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
