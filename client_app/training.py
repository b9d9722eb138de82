"""Local training: a set number of steps on batches read straight from the memory map."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from flower_ist.slice_message import LR_SCALES_KEY
from flower_ist.tokens import TokenShard

# The key with which Flower's FedProx sends the weight of its proximal term.
PROXIMAL_KEY = "proximal-mu"

# Rows are read from the map for several batches at once: one gather instead of many small ones.
_BATCHES_PER_READ = 16


@dataclass(frozen=True)
class LocalSettings:
    """One round's settings, as the server sent them."""

    server_round: int
    local_steps: int
    batch_size: int
    learning_rate: float
    seed: int
    lr_scales: Mapping[str, float] = field(default_factory=dict)
    proximal_mu: float = 0.0

    @classmethod
    def from_config(cls, config: ConfigRecord) -> LocalSettings:
        """Read the settings from a message's ConfigRecord.

        Raises:
            ValueError: a key is missing or its value is of no use.
        """
        return cls(
            server_round=_whole(config, "server-round"),
            local_steps=_whole(config, "local-steps"),
            batch_size=_whole(config, "batch-size", least=1),
            learning_rate=_rate(config.get("learning-rate"), "learning-rate"),
            seed=_whole(config, "seed"),
            lr_scales=_scales(str(config.get(LR_SCALES_KEY, "{}"))),
            proximal_mu=_rate(config.get(PROXIMAL_KEY, 0.0), PROXIMAL_KEY),
        )


def train(model: nn.Module, shard: TokenShard, settings: LocalSettings, client: str) -> float:
    """Train with Adam, started afresh, and return the mean loss of the steps.

    Adam is fresh because the slot of a neuron holds another one after a repartition: old moments
    would belong to somebody else. A slice's summed weights are larger than the model's own by a
    factor that the server names; their learning rate is too, so that a step moves the model's
    weights as far as it would without the cut (docs/method.md).

    With ``proximal_mu`` FedProx' term ``mu / 2 ||w - w_sent||^2`` is added to the loss that is
    minimised (Li et al., MLSys 2020, https://arxiv.org/abs/1812.06127, equation 2), though not to
    the loss that is returned. Flower's documentation leaves out the square; the paper has it.
    """
    model.train()
    mu = settings.proximal_mu
    sent = [weight.detach().clone() for weight in model.parameters()] if mu else []
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        by_scale.setdefault(settings.lr_scales.get(name, 1.0), []).append(weight)
    groups = [
        {"params": weights, "lr": settings.learning_rate * scale}
        for scale, weights in by_scale.items()
    ]
    optimizer = torch.optim.Adam(groups, fused=True)
    total = torch.zeros(())
    for tokens, labels in _batches(shard, settings, client):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(tokens), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if mu:
            _add_proximal_gradient(model, sent, mu)
        optimizer.step()
        total += loss.detach()
    return float(total) / max(1, settings.local_steps)


def _add_proximal_gradient(model: nn.Module, sent: Sequence[torch.Tensor], mu: float) -> None:
    """Add the proximal term's gradient, ``mu (w - w_sent)``, to the gradients that are there."""
    for weight, start in zip(model.parameters(), sent, strict=True):
        if weight.grad is not None:
            weight.grad.add_(weight.detach() - start, alpha=mu)


def batch_order(num_examples: int, settings: LocalSettings, client: str) -> NDArray[np.intp]:
    """Return the rows of all of a round's batches, (local_steps * batch_size,).

    Whole epochs in new orders follow one another. The order depends on seed, round and the client's
    name only, so that every strategy sees the same batches.
    """
    needed = settings.local_steps * settings.batch_size
    entropy = [settings.seed, settings.server_round, zlib.crc32(client.encode())]
    generator = np.random.default_rng(entropy)
    epochs = -(-needed // num_examples)
    rows = [generator.permutation(num_examples) for _ in range(epochs)]
    return np.concatenate(rows)[:needed] if rows else np.empty(0, dtype=np.intp)


def _whole(config: ConfigRecord, key: str, least: int = 0) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"The server sent {key!r} as {value!r}: a whole number of at least {least} is needed."
        )
    return value


def _rate(value: Any, key: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise ValueError(
            f"The server sent {key!r} as {value!r}: a finite number of at least 0 is needed."
        )
    return float(value)


def _scales(text: str) -> dict[str, float]:
    try:
        scales = json.loads(text)
    except (ValueError, RecursionError):
        scales = None
    if not isinstance(scales, dict):
        raise ValueError(
            f"The server sent {LR_SCALES_KEY!r} as {text[:80]!r}: a JSON object is needed."
        )
    return {name: _rate(scale, f"{LR_SCALES_KEY} of {name}") for name, scale in scales.items()}


def _batches(
    shard: TokenShard, settings: LocalSettings, client: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    order = batch_order(len(shard), settings, client)
    size = settings.batch_size
    for start in range(0, len(order), size * _BATCHES_PER_READ):
        rows = order[start : start + size * _BATCHES_PER_READ]
        tokens, labels = map(torch.from_numpy, shard.batch(rows))
        for first in range(0, len(rows), size):
            yield tokens[first : first + size], labels[first : first + size]
