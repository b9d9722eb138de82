"""The classifier on CLS tokens: a multilayer perceptron that is built from its arrays' shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flower_ist.errors import ArgumentError


class MLP(nn.Module):
    """Linear layers ``fc1`` to ``fcL`` with ReLU between them, e.g. 768-1024-1024-10.

    Input (B, D) float32, output (B, C) logits.

    Args:
        dims: (D, H1, ..., C): the widths of the input, each hidden layer and the output.
        device: where the weights are made; "meta" makes none.
    """

    def __init__(self, dims: Sequence[int], device: str = "cpu") -> None:
        super().__init__()
        for layer in range(len(dims) - 1):
            linear = nn.Linear(dims[layer], dims[layer + 1], device=device)
            self.add_module(f"fc{layer + 1}", linear)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (B, C) for tokens (B, D)."""
        *hidden_layers, output_layer = self.children()
        hidden = tokens
        for layer in hidden_layers:
            hidden = torch.relu(layer(hidden))
        logits: torch.Tensor = output_layer(hidden)
        return logits

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> MLP:
        """Build the net that some arrays belong to, whole or slice, and load them.

        Raises:
            ArgumentError: the arrays are not ``fc1.weight, fc1.bias, fc2.weight, ...`` of an MLP.
        """
        # Weights are neither drawn nor copied twice: the arrays' copies become the parameters.
        model = cls(mlp_dims({n: array.shape for n, array in arrays.items()}), device="meta")
        model.load_state_dict({n: torch.tensor(a) for n, a in arrays.items()}, assign=True)
        return model

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the weights as numpy arrays that share the model's memory."""
        return {name: tensor.numpy() for name, tensor in self.state_dict().items()}


def mlp_shapes(dims: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the tensors of an MLP, in order of depth."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (d_in, d_out) in enumerate(pairwise(dims), start=1):
        shapes[f"fc{layer}.weight"] = (d_out, d_in)
        shapes[f"fc{layer}.bias"] = (d_out,)
    return shapes


def mlp_dims(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Return (D, H1, ..., C) of an MLP's tensors.

    Raises:
        ArgumentError: the names or shapes are not those of :class:`MLP`.
    """
    weights = [shapes.get(f"fc{layer}.weight") for layer in range(1, len(shapes) // 2 + 1)]
    dims = [shape[1] for shape in weights[:1] if shape is not None and len(shape) == 2]
    dims += [shape[0] for shape in weights if shape]
    if len(dims) < 2 or mlp_shapes(dims) != dict(shapes):
        raise ArgumentError(
            "The arrays "
            + ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            + " are not the layers fc1, fc2, ... of a multilayer perceptron."
        )
    return dims


def initial_weights(dims: Sequence[int], seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw PyTorch's default initialization, uniform in +-1/sqrt(fan-in), from a seed."""
    weights: dict[str, NDArray[np.float32]] = {}
    generator = np.random.default_rng([seed, 1])
    for name, shape in mlp_shapes(dims).items():
        layer = int(name.removeprefix("fc").split(".")[0])
        bound = 1 / math.sqrt(dims[layer - 1])
        weights[name] = generator.uniform(-bound, bound, shape).astype(np.float32)
    return weights
