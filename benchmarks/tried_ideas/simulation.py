"""The recipe in one small loop, made of the library's own functions, without Flower's messages.

For the recipe, for int8 and int4, for two slices and for a last round at full width it gives what
``flower-ist compare`` gives with the same tokens, seed and settings, to the bit; the command is in
``benchmarks/tried.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client_app.local_settings import LocalSettings
from flower_ist.axes import Axes, mlp_axes
from flower_ist.merging import merge
from flower_ist.model import initial_weights, mlp_shapes
from flower_ist.slicing import Returned, Tensors, scale, take
from tried_ideas.beside import SKIP, Evaluation, Score, skip_of_ridge
from tried_ideas.federation import Federation
from tried_ideas.ideas import Idea
from tried_ideas.local import train_locally
from tried_ideas.priors import token_prior
from tried_ideas.tasks import tasks_of_round
from tried_ideas.wire import Wire

HIDDEN = (1024, 1024)
BATCH_SIZE = 64
LEARNING_RATE = 0.0005


@dataclass(frozen=True)
class Round:
    """What a round brought, and the bytes of its slices in both directions, all clients."""

    score: Score
    payload_bytes: int


def simulate(idea: Idea, federation: Federation, rounds: int, local_steps: int) -> Iterator[Round]:
    """Train with an idea and yield each round.

    Args:
        idea: what is changed in the recipe.
        federation: the clients, the server's data, the seed.
        rounds: how many.
        local_steps: of each client in a round.
    """
    prior = token_prior(idea, federation)
    skip = skip_of_ridge(idea, federation, prior) if idea.skip else None
    weights, axes = _start(idea, federation, skip)
    evaluation = Evaluation(idea, federation, prior, skip)
    wire = Wire(idea, axes, federation.seed)
    for server_round in range(1, rounds + 1):
        before = wire.bytes
        returned = []
        for task in tasks_of_round(idea, federation, server_round, rounds, axes, weights):
            folded = not task.factors
            scales = {n: scale(axes, n, task.indices) if folded else 1.0 for n in axes.shapes}
            settings = LocalSettings(
                server_round=server_round,
                local_steps=local_steps,
                batch_size=BATCH_SIZE,
                learning_rate=LEARNING_RATE,
                seed=federation.seed,
                lr_scales=scales,
            )
            sent = take(weights, axes, task.indices, scaled=folded)
            received = wire.down(task, sent)
            trained = train_locally(idea, task, settings, prior, skip, received)
            answer = wire.up(task, sent, received, trained)
            returned.append(Returned(task.indices, answer, len(task.client)))
        merge(weights, axes, returned, scaled=not idea.core)
        yield Round(evaluation.score(weights), wire.bytes - before)


def _start(
    idea: Idea, federation: Federation, skip: Tensors | None
) -> tuple[dict[str, NDArray[np.float32]], Axes]:
    """Return the initial model and its axes; beside a skip the last layer is zero."""
    dims = (federation.dim, *HIDDEN, federation.num_classes)
    weights = initial_weights(dims, federation.seed)
    axes = mlp_axes(mlp_shapes(dims))
    if skip is not None:
        *_, last_weight, last_bias = weights
        weights |= {name: np.zeros_like(weights[name]) for name in (last_weight, last_bias)}
        if idea.train_skip:
            weights |= {SKIP: skip["fc1.weight"].copy(), last_bias: skip["fc1.bias"].copy()}
            axes = Axes.declare({n: tensor.shape for n, tensor in weights.items()}, axes.labels)
    return weights, axes
