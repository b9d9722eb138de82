"""Evaluate a classifier's arrays on a token shard, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch.nn import functional

from flower_ist.classifier.blend import Model, RidgeBlend, blended
from flower_ist.classifier.mlp import MLP
from flower_ist.strategies.submodel import SubmodelStrategy
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


def fixed_slices(strategy: SubmodelStrategy, num_clients: int) -> Sequence[Cut]:
    """Return the slices that a strategy keeps for good; none if it is no ensemble of nets.

    Args:
        strategy: of any scheme.
        num_clients: how many trained in the last round: without ``num_slices`` there are as many
            slices. With ``capacities`` the slices follow from who these clients are, so there are
            none that are kept for good.
    """
    if not strategy.scheme.ensemble or strategy.capacities is not None or num_clients == 0:
        return []
    widths = strategy.axes.widths
    num_slices = strategy.num_slices or min(num_clients, *widths.values())
    shares = strategy.shares or [1.0] * num_slices
    slots = strategy.scheme.draw(strategy.seed, 1, widths, shares)
    return [Cut(strategy.axes, indices, strategy.scheme.scaled) for indices in slots]


def ensemble_accuracies(
    strategy: Strategy,
    num_clients: int,
    weights: Mapping[str, NDArray[Any]],
    shards: Mapping[str, TokenShard | None],
    blend: RidgeBlend | None = None,
) -> dict[str, float]:
    """Return the accuracies of a strategy's averaged logits, under the names of the shards.

    Args:
        strategy: any; without :func:`fixed_slices` nothing is returned.
        num_clients: as :func:`fixed_slices` takes it.
        weights: the whole model.
        shards: name -> what to evaluate on; None: nothing under this name.
        blend: a ridge head that predicts beside the nets.
    """
    if not isinstance(strategy, SubmodelStrategy):
        return {}
    cuts = fixed_slices(strategy, num_clients)
    return {
        name: evaluate_ensemble(weights, cuts, shard, blend)[0]
        for name, shard in shards.items()
        if cuts and shard is not None
    }


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
