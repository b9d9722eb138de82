"""Evaluate a classifier's arrays on a token shard, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from flower_ist.axes import Axes
from flower_ist.model import MLP
from flower_ist.partition import Indices
from flower_ist.slicing import take
from flower_ist.tokens import TokenShard

_ROWS_PER_BATCH = 4096


def evaluate_arrays(arrays: Mapping[str, NDArray[Any]], shard: TokenShard) -> tuple[float, float]:
    """Return accuracy (0 to 1) and mean cross-entropy (nats) over all examples of a shard.

    At most 4,096 tokens are in memory at a time, whatever the shard's size.
    """
    return _evaluate(MLP.from_arrays(arrays).eval(), shard)


def ensemble_logits(
    weights: Mapping[str, NDArray[Any]],
    index_sets: Sequence[Indices],
    axes: Axes,
    tokens: NDArray[np.float32],
    *,
    scaled: bool = True,
) -> NDArray[np.float32]:
    """Return the mean of the logits that some slices of a model give, each as a net of its own.

    Args:
        weights: the whole model.
        index_sets: the slices, e.g. those of ``ist-fixed``, whose nets these are.
        axes: which axis belongs to which width.
        tokens: (B, D).
        scaled: as the strategy's member is.

    Returns:
        Logits (B, C).
    """
    ensemble = _ensemble(weights, index_sets, axes, scaled)
    with torch.inference_mode():
        logits: NDArray[np.float32] = ensemble(torch.from_numpy(tokens)).numpy()
    return logits


def evaluate_ensemble(
    weights: Mapping[str, NDArray[Any]],
    index_sets: Sequence[Indices],
    axes: Axes,
    shard: TokenShard,
    *,
    scaled: bool = True,
) -> tuple[float, float]:
    """Return what :func:`evaluate_arrays` does, for the slices' averaged logits."""
    return _evaluate(_ensemble(weights, index_sets, axes, scaled), shard)


def _ensemble(
    weights: Mapping[str, NDArray[Any]], index_sets: Sequence[Indices], axes: Axes, scaled: bool
) -> Callable[[torch.Tensor], torch.Tensor]:
    nets = [
        MLP.from_arrays(take(weights, axes, indices, scaled=scaled)).eval()
        for indices in index_sets
    ]
    return lambda tokens: torch.stack([net(tokens) for net in nets]).mean(dim=0)


def _evaluate(
    model: Callable[[torch.Tensor], torch.Tensor], shard: TokenShard
) -> tuple[float, float]:
    correct = 0
    loss = 0.0
    with torch.inference_mode():
        for start in range(0, len(shard), _ROWS_PER_BATCH):
            tokens, labels = shard.batch(slice(start, start + _ROWS_PER_BATCH))
            logits = model(torch.from_numpy(tokens))
            target = torch.from_numpy(labels)
            correct += int((logits.argmax(dim=1) == target).sum())
            loss += float(functional.cross_entropy(logits, target, reduction="sum"))
    return correct / len(shard), loss / len(shard)
