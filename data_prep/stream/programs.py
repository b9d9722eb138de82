"""What ``flower-ist export`` calls where torch is needed: encoders as ONNX, models as ``.pt2``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.encoders.frozen import FixedMask
from data_prep.masks.draw import draw_mask
from data_prep.masks.names import make_mask
from data_prep.stream.tokens import open_encoding
from flower_ist.tokens.recipe import Recipe

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight (out, in) and bias (out,)."""


class HeadModule(torch.nn.Module):
    """token (B, D) -> probabilities (B, C).

    Args:
        layers: Of the net, with ReLU between them.
        skip: A linear head that is added to the net's output; None for none.
    """

    def __init__(self, layers: Sequence[Layer], skip: Layer | None) -> None:
        super().__init__()
        parts: list[torch.nn.Module] = []
        for layer in layers:
            parts += [_linear(*layer), torch.nn.ReLU()]
        self.net = torch.nn.Sequential(*parts[:-1])
        self.skip = None if skip is None else _linear(*skip)

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        """Return the probabilities."""
        logits: torch.Tensor = self.net(token)
        if self.skip is not None:
            logits = logits + self.skip(token)
        return torch.softmax(logits, dim=1)


def fixed_encoder(recipe: Recipe, *, whole: bool, encoder: str, weights: str) -> FixedMask:
    """Return a recipe's encoder for one mask of all images: that of image 0, or none.

    Args:
        recipe: How the model's tokens were made.
        whole: Keep all patches.
        encoder: As prep's, where it is not the embedded one.
        weights: As prep's.

    Raises:
        PrepError: the encoder is not given or is another one.
    """
    encoding = open_encoding(recipe, encoder, weights)
    mask = encoding.mask
    if whole:
        mask = make_mask(mask.kind, 0.0, mask.seed, mask.patches)
    return encoding.encoder.fixed(draw_mask(mask, np.zeros(1, np.int64))[0])


def encoder_onnx(
    recipe: Recipe, *, opset: int, whole: bool = False, encoder: str = "", weights: str = ""
) -> Any:
    """Return ONNX of pixels (B, 3, S, S) float32, 0 to 255, -> token (B, D).

    Raises:
        PrepError: as :func:`fixed_encoder`, or onnx or onnxscript is missing.
    """
    model = fixed_encoder(recipe, whole=whole, encoder=encoder, weights=weights)
    try:
        with warnings.catch_warnings(action="ignore"):
            made = torch.onnx.export(
                model,
                (_pixels(recipe),),
                input_names=["pixels"],
                output_names=["token"],
                opset_version=opset,
                dynamic_shapes=_ANY_BATCH,
                dynamo=True,
                verbose=False,
            )
    except ModuleNotFoundError as err:
        raise PrepError(f"{err.name} is missing: pip install 'flower-ist[export]'.") from err
    assert made is not None
    return made.model_proto


def torch_program(
    layers: Sequence[Layer],
    skip: Layer | None,
    about: Mapping[str, str],
    recipe: Recipe | None,
    *,
    whole: bool = False,
    encoder: str = "",
    weights: str = "",
) -> bytes:
    """Return a ``.pt2`` file for ``torch.export.load``, of any batch size.

    Args:
        layers: Of the head.
        skip: Of the head.
        about: Texts that the file carries, by name.
        recipe: Of an encoder that goes before the head: the input is then pixels (B, 3, S, S)
            float32, 0 to 255, else a token (B, D).
        whole: As :func:`fixed_encoder`.
        encoder: As prep's.
        weights: As prep's.

    Raises:
        PrepError: as :func:`fixed_encoder`.
    """
    model: torch.nn.Module = HeadModule(layers, skip).eval()
    example = torch.zeros(2, layers[0][0].shape[1])
    if recipe is not None:
        before = fixed_encoder(recipe, whole=whole, encoder=encoder, weights=weights)
        model, example = torch.nn.Sequential(before, model).eval(), _pixels(recipe)
    with warnings.catch_warnings(action="ignore"):
        exported = torch.export.export(model, (example,), dynamic_shapes=_ANY_BATCH)
        stream = io.BytesIO()
        torch.export.save(exported, stream, extra_files=dict(about))
    return stream.getvalue()


_ANY_BATCH: Any = ({0: torch.export.Dim("batch")},)


def _pixels(recipe: Recipe) -> torch.Tensor:
    size = recipe.encoder.image_size
    return torch.zeros(2, 3, size, size)


def _linear(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> torch.nn.Linear:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    # A copy: a file's memory may not be writable.
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return layer
