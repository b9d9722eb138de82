"""An ensemble of a model's slices, each as a separate net: their averaged logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.classifier.evaluate import evaluate_model
from flower_ist.classifier.mlp import layers_of, logits
from flower_ist.classifier.skip import Model, RidgeSkip, with_skip
from flower_ist.submodels.cut import Cut
from flower_ist.tokens.shard import TokenShard


def ensemble_logits(
    weights: Mapping[str, NDArray[Any]], cuts: Sequence[Cut], tokens: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the mean of the logits of a model's slices, each evaluated as a separate net.

    Args:
        weights: the whole model.
        cuts: the slices, e.g. those of ``ist-fixed``.
        tokens: (B, D).

    Returns:
        Logits (B, C).
    """
    return _ensemble(weights, cuts)(tokens)


def evaluate_ensemble(
    weights: Mapping[str, NDArray[Any]],
    cuts: Sequence[Cut],
    shard: TokenShard,
    skip: RidgeSkip | None = None,
) -> tuple[float, float]:
    """Return accuracy and loss of the averaged logits, as in :func:`.evaluate.evaluate_arrays`."""
    return evaluate_model(with_skip(_ensemble(weights, cuts), skip), shard)


def _ensemble(weights: Mapping[str, NDArray[Any]], cuts: Sequence[Cut]) -> Model:
    nets = [layers_of(cut.take(weights)) for cut in cuts]
    return lambda tokens: np.stack([logits(net, tokens) for net in nets]).mean(axis=0)
