"""The classifier on CLS tokens: a multilayer perceptron that is defined by its arrays' shapes.

Linear layers ``fc1`` to ``fcL`` with ReLU between them, e.g. 384-64-64-10: tokens (B, D) in, logits
(B, C) out. A layer is a pair of arrays, weight (outputs, inputs) and bias (outputs,), and a net is
the list of its layers. Pure numpy; :mod:`flower_ist.classifier.gradient` trains it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import ArgumentError

Layers = list[tuple[NDArray[Any], NDArray[Any]]]


def logits(layers: Layers, tokens: NDArray[Any]) -> NDArray[Any]:
    """Return logits (B, C) for tokens (B, D)."""
    hidden = tokens
    for weight, bias in layers[:-1]:
        hidden = hidden @ weight.T
        hidden += bias
        np.maximum(hidden, 0, out=hidden)
    weight, bias = layers[-1]
    found: NDArray[Any] = hidden @ weight.T + bias
    return found


def layers_of(arrays: Mapping[str, NDArray[Any]]) -> Layers:
    """Return arrays of a whole model or a slice as layers; they share memory with the arrays.

    Raises:
        ArgumentError: the arrays are not ``fc1.weight, fc1.bias, fc2.weight, ...`` of an MLP.
    """
    depth = len(mlp_dims({name: array.shape for name, array in arrays.items()}))
    return [(arrays[f"fc{layer}.weight"], arrays[f"fc{layer}.bias"]) for layer in range(1, depth)]


def views_of(
    vector: NDArray[Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[Any]]:
    """Divide a vector into consecutive tensors of the given shapes, without a copy.

    Args:
        vector: (P,), with P the sum of the tensors' sizes.
        shapes: name -> shape, in their order in the vector.
    """
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = np.split(vector, ends[:-1])
    return {
        name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def mlp_shapes(dims: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the tensors of an MLP, in order of depth.

    Args:
        dims: (D, H1, ..., C): the widths of the input, each hidden layer and the output.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (d_in, d_out) in enumerate(pairwise(dims), start=1):
        shapes[f"fc{layer}.weight"] = (d_out, d_in)
        shapes[f"fc{layer}.bias"] = (d_out,)
    return shapes


def mlp_dims(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Return (D, H1, ..., C) of an MLP's tensors.

    Raises:
        ArgumentError: the names or shapes are not those of :func:`mlp_shapes`.
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
