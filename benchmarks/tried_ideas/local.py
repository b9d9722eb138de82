"""A client's training: the library's own ``train``, with what an idea adds hooked into the net.

* Dropout: Srivastava et al., JMLR 2014.
* Mixup: Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412: a batch and the same batch in
  another order are mixed, tokens and labels, with a weight from Beta(alpha, alpha).
* Logit adjustment: Menon et al., ICLR 2021, https://arxiv.org/abs/2007.07314, the adjusted loss
  with tau = 1: in training the logarithm of the class frequencies is added to the logits, here of
  those of the client's own batches, virtual examples included.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from client_app.batches import Batches
from client_app.local_settings import LocalSettings
from client_app.training import train
from flower_ist.model import MLP
from flower_ist.slicing import Tensors
from flower_ist.token_prior import TokenPrior
from flower_ist.tokens import TokenShard
from tried_ideas.beside import SKIP
from tried_ideas.ideas import Idea
from tried_ideas.tasks import Task

_LEAST_FREQUENCY = 1e-6
# Keeps what ideas draw apart from the streams of :mod:`client_app.batches`.
_STREAM = 2

Inputs = tuple[torch.Tensor]


def train_locally(
    idea: Idea,
    task: Task,
    settings: LocalSettings,
    prior: TokenPrior,
    skip: Tensors | None,
    received: Tensors,
) -> dict[str, NDArray[np.float32]]:
    """Train a slice and return it.

    Args:
        idea: what is tried.
        task: of the client.
        settings: of the round.
        prior: that the client trains with.
        skip: of :func:`tried_ideas.beside.skip_of_ridge`, which is not trained; None without one.
        received: the slice.
    """
    entropy = [settings.seed, settings.server_round, zlib.crc32(task.name.encode()), _STREAM]
    chance = np.random.default_rng(entropy)
    if idea.mixup:
        batches: Batches = MixedBatches(
            task.client, settings, task.name, prior, alpha=idea.mixup, chance=chance
        )
    else:
        batches = Batches(task.client, settings, task.name, prior)
    net = MLP.from_arrays({n: tensor for n, tensor in received.items() if n != SKIP})
    for name in task.frozen:
        net.get_parameter(name).requires_grad_(False)
    first, *others = net.children()
    for layer, factors in zip(others, task.factors, strict=False):
        layer.register_forward_pre_hook(_times(torch.from_numpy(factors)))
    if idea.dropout:
        bits = torch.Generator().manual_seed(int(chance.integers(2**63)))
        first.register_forward_pre_hook(_dropped(idea.input_dropout, bits))
        for layer in others:
            layer.register_forward_pre_hook(_dropped(idea.dropout, bits))
    if idea.logit_adjust:
        frequencies = _frequencies(task, batches, prior)
        net.register_forward_hook(_plus(torch.from_numpy(np.log(frequencies)).float()))
    if SKIP in received:
        weight = nn.Parameter(torch.tensor(received[SKIP]))
        net.register_parameter(SKIP, weight)
        net.register_forward_hook(_with_skip(weight, None))
    elif skip is not None:
        fixed, bias = (torch.from_numpy(skip[f"fc1.{part}"]) for part in ("weight", "bias"))
        net.register_forward_hook(_with_skip(fixed, bias))
    train(net, batches)
    return net.to_arrays()


class MixedBatches(Batches):
    """Batches after mixup; labels (batch_size, C) are probabilities.

    Args:
        shard, settings, client, prior: as :class:`Batches` takes them.
        alpha: of the Beta distribution.
        chance: where weights and orders come from.
    """

    def __init__(
        self,
        shard: TokenShard,
        settings: LocalSettings,
        client: str,
        prior: TokenPrior,
        *,
        alpha: float,
        chance: np.random.Generator,
    ) -> None:
        super().__init__(shard, settings, client, prior)
        self._num_classes = shard.meta.num_classes
        self._alpha = alpha
        self._chance = chance

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield tokens (batch_size, D) and labels (batch_size, C)."""
        for tokens, labels in super().__iter__():
            share = float(self._chance.beta(self._alpha, self._alpha))
            order = torch.from_numpy(self._chance.permutation(len(labels)))
            one_hot = functional.one_hot(labels, self._num_classes).float()
            mixed, targets = (share * x + (1 - share) * x[order] for x in (tokens, one_hot))
            yield mixed, targets


def _frequencies(task: Task, batches: Batches, prior: TokenPrior) -> NDArray[np.float64]:
    """Return the share that each class has in a client's batches, (C,), none quite 0."""
    counts = np.bincount(task.client.labels, minlength=task.client.meta.num_classes)
    expected: NDArray[np.float64] = batches.real_per_batch * counts / counts.sum()
    if prior.gaussians is not None:
        _, lacking = prior.gaussians.shortfall(counts)
        expected = expected + batches.virtual_per_batch * lacking
    return (expected / batches.settings.batch_size).clip(_LEAST_FREQUENCY)


def _times(factors: torch.Tensor) -> Callable[[nn.Module, Inputs], Inputs]:
    return lambda _, inputs: (inputs[0] * factors,)


def _dropped(share: float, bits: torch.Generator) -> Callable[[nn.Module, Inputs], Inputs]:
    def drop(_: nn.Module, inputs: Inputs) -> Inputs:
        kept = torch.rand(inputs[0].shape, generator=bits) >= share
        return (inputs[0] * kept / (1 - share),)

    return drop


def _plus(
    logarithms: torch.Tensor,
) -> Callable[[nn.Module, Inputs, torch.Tensor], torch.Tensor]:
    return lambda _, __, logits: logits + logarithms


def _with_skip(
    weight: torch.Tensor, bias: torch.Tensor | None
) -> Callable[[nn.Module, Inputs, torch.Tensor], torch.Tensor]:
    return lambda _, inputs, logits: logits + functional.linear(inputs[0], weight, bias)
