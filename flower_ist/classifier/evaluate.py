"""Evaluate a classifier's arrays on a token shard, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.classifier.mlp import layers_of, logits
from flower_ist.classifier.skip import LinearSkip, Model, with_skip
from flower_ist.tokens.shard import TokenShard


def evaluate_arrays(
    arrays: Mapping[str, NDArray[Any]], shard: TokenShard, skip: LinearSkip | None = None
) -> tuple[float, float]:
    """Return accuracy (0 to 1) and mean cross-entropy (nats) over all examples of a shard.

    At most 4,096 tokens are in memory at a time, whatever the shard's size.

    Args:
        arrays: of a net.
        shard: the tokens to classify.
        skip: a fixed head whose outputs are added to the net's.
    """
    return evaluate_model(with_skip(partial(logits, layers_of(arrays)), skip), shard)


def evaluate_model(model: Model, shard: TokenShard) -> tuple[float, float]:
    """Return what :func:`evaluate_arrays` returns, for any model that gives logits (B, C)."""
    correct = 0
    loss = 0.0
    with np.errstate(all="ignore"):
        for part in shard.chunks():
            tokens, labels = part.batch()
            scores = model(tokens)
            correct += int((scores.argmax(axis=1) == labels).sum())
            loss += float(_cross_entropy(scores, labels).sum(dtype=np.float64))
    return correct / len(shard), loss / len(shard)


def _cross_entropy(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[Any]:
    """Return -log softmax of logits (B, C) at the labels (B,), as (B,)."""
    scores = scores - scores.max(axis=1, keepdims=True)
    losses: NDArray[Any] = np.log(np.exp(scores).sum(axis=1))
    losses -= scores[np.arange(len(labels)), labels]
    return losses
