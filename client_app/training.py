"""Local training: a set number of steps of Adam, started afresh in each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client_app.batches import Batches
from flower_ist.classifier.adam import Adam
from flower_ist.classifier.gradient import Workspace, loss_and_gradient
from flower_ist.classifier.mlp import layers_of, mlp_dims, mlp_shapes, views_of
from flower_ist.errors import ArgumentError

Floats = NDArray[np.float32]


def train(
    arrays: Mapping[str, NDArray[Any]],
    batches: Batches,
    *,
    offset: Callable[[Floats], Floats] | None = None,
) -> tuple[dict[str, Floats], float]:
    """Train an MLP with Adam, started afresh; return its arrays and the mean loss of the steps.

    Adam is restarted because a neuron's slot holds a different neuron after a repartition: old
    moments would belong to another neuron. A slice's summed weights are larger than the model's own
    by a factor that the server sends; so is their learning rate, so that a step changes the model's
    weights as much as it would without the cut (docs/method.md).

    With ``proximal_mu`` FedProx' term ``mu / 2 ||w - w_sent||^2`` is added to the loss that is
    minimized (Li et al., MLSys 2020, https://arxiv.org/abs/1812.06127, equation 2), though not to
    the loss that is returned. Flower's documentation leaves out the square; the paper has it.

    Args:
        arrays: ``fc1.weight`` to ``fcL.bias``, a slice or a whole model; not changed.
        batches: of the round.
        offset: gives, for tokens (B, D), numbers (C, B) that are added to the logits.

    Raises:
        ArgumentError: the arrays are not those of an MLP, or not for this shard's tokens or labels.
    """
    settings = batches.settings
    mu, rate = settings.proximal_mu, settings.learning_rate
    shapes = mlp_shapes(mlp_dims({name: array.shape for name, array in arrays.items()}))
    _check(shapes, batches)
    weights = np.concatenate([np.ravel(arrays[name]) for name in shapes], dtype=np.float32)
    gradient = np.empty_like(weights)
    trained = views_of(weights, shapes)
    layers, gradients = layers_of(trained), layers_of(views_of(gradient, shapes))
    work = Workspace.of(layers, settings.batch_size)
    rates = [(trained[name].size, rate * settings.lr_scales.get(name, 1.0)) for name in shapes]
    optimizer = Adam(weights, rates)
    sent, pull = (weights.copy(), np.empty_like(weights)) if mu else (weights, weights)
    total = 0.0
    # A diverging net shows in its numbers, which the server judges.
    with np.errstate(all="ignore"):
        for tokens, labels in batches:
            added = None if offset is None else offset(tokens)
            total += loss_and_gradient(layers, gradients, tokens, labels, work, added)
            if mu:
                np.subtract(weights, sent, out=pull)
                np.multiply(pull, mu, out=pull)
                np.add(gradient, pull, out=gradient)
            optimizer.step(gradient)
    return trained, total / max(1, settings.local_steps)


def _check(shapes: Mapping[str, tuple[int, ...]], batches: Batches) -> None:
    dim, *_, classes = mlp_dims(shapes)
    if dim != batches.dim or classes <= batches.highest_label:
        raise ArgumentError(
            f"The net that came tells {classes} classes apart from tokens of {dim} numbers, but "
            f"this shard's tokens have {batches.dim} and its labels go up to "
            f"{batches.highest_label}: the run needs another shard."
        )
