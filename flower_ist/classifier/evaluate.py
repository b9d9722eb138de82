"""Evaluate a classifier's arrays on a token shard, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from flower_ist.classifier.blend import Model, RidgeBlend, blended
from flower_ist.classifier.mlp import MLP
from flower_ist.submodels.cut import Cut
from flower_ist.tokens.shard import TokenShard

_ROWS_PER_BATCH = 4096


def evaluate_arrays(
    arrays: Mapping[str, NDArray[Any]], shard: TokenShard, blend: RidgeBlend | None = None
) -> tuple[float, float]:
    """Return accuracy (0 to 1) and mean cross-entropy (nats) over all examples of a shard.

    At most 4,096 tokens are in memory at a time, whatever the shard's size.

    Args:
        arrays: of a net.
        shard: whose tokens are classified.
        blend: a ridge head that predicts beside the net.
    """
    return _evaluate(blended(MLP.from_arrays(arrays).eval(), blend), shard)


def ensemble_logits(
    weights: Mapping[str, NDArray[Any]], cuts: Sequence[Cut], tokens: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the mean of the logits that some slices of a model give, each as a net of its own.

    Args:
        weights: the whole model.
        cuts: the slices, e.g. those of ``ist-fixed``.
        tokens: (B, D).

    Returns:
        Logits (B, C).
    """
    ensemble = _ensemble(weights, cuts)
    with torch.inference_mode():
        logits: NDArray[np.float32] = ensemble(torch.from_numpy(tokens)).numpy()
    return logits


def evaluate_ensemble(
    weights: Mapping[str, NDArray[Any]],
    cuts: Sequence[Cut],
    shard: TokenShard,
    blend: RidgeBlend | None = None,
) -> tuple[float, float]:
    """Return what :func:`evaluate_arrays` does, for the slices' averaged logits."""
    return _evaluate(blended(_ensemble(weights, cuts), blend), shard)


def _ensemble(weights: Mapping[str, NDArray[Any]], cuts: Sequence[Cut]) -> Model:
    nets = [MLP.from_arrays(cut.take(weights)).eval() for cut in cuts]
    return lambda tokens: torch.stack([net(tokens) for net in nets]).mean(dim=0)


def _evaluate(model: Model, shard: TokenShard) -> tuple[float, float]:
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
