"""Predict with a net and a ridge head together.

Ridge regression on one-hot labels estimates the probabilities of the classes, in closed form and
whatever the split (:mod:`flower_ist.statistics.sums`). It errs otherwise than a net does, so that
the weighted mean of both is better than either: (softmax(net(x)) + w ridge(x)) / (1 + w).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Model = Callable[[NDArray[Any]], NDArray[Any]]

# A probability in the logarithm: ridge's estimates are not bound to be above 0.
_LEAST = 1e-6


@dataclass(frozen=True)
class RidgeBlend:
    """A ridge head and its weight beside a net.

    Attributes:
        weight: (C, D) of the head, for tokens as they are.
        bias: (C,).
        share: w, above 0; 1 is an equal part, 2 twice the net's.
    """

    weight: NDArray[Any]
    bias: NDArray[Any]
    share: float

    @classmethod
    def of_head(cls, head: Mapping[str, NDArray[Any]], share: float) -> RidgeBlend:
        """Return the blend with a head of :func:`flower_ist.statistics.sums.linear_head`."""
        # In the order in which a model file holds it, so that both give the same bits.
        return cls(np.ascontiguousarray(head["fc1.weight"]), head["fc1.bias"], share)

    def log_probabilities(self, logits: NDArray[Any], tokens: NDArray[Any]) -> NDArray[Any]:
        """Return the logarithms of the blended probabilities, (B, C).

        Args:
            logits: (B, C) of the net.
            tokens: (B, D), as they are.
        """
        ridge = tokens @ self.weight.T + self.bias
        blended = np.maximum(softmax(logits) + self.share * ridge, _LEAST)
        found: NDArray[Any] = np.log(blended / blended.sum(axis=1, keepdims=True))
        return found


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the probabilities (B, C) that logits (B, C) stand for; each row sums to 1."""
    found: NDArray[Any] = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found


def blended(net: Model, blend: RidgeBlend | None) -> Model:
    """Return what gives the blend's log-probabilities (B, C); without a blend, the net.

    Args:
        net: gives logits (B, C) for tokens (B, D).
        blend: a ridge head that predicts beside it.
    """
    if blend is None:
        return net
    return lambda tokens: blend.log_probabilities(net(tokens), tokens)
