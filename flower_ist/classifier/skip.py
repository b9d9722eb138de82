"""A closed-form head inside the classifier: the net learns what discriminant analysis misses.

The statistics that clients send before round 1 give, in closed form and independently of the split,
the logarithm of the classes' probabilities if every class is a Gaussian with the same covariance
(:mod:`flower_ist.statistics.lda`). Half of it is added to the net's logits, in the loss and in
every prediction:

    logits(x) = net(x) + V x + v,      V x + v = 1/2 log p(c | x) + a term independent of c

So training begins where the closed form ends, as boosting does with its next learner. Half, because
real tokens have heavier tails than Gaussians: it predicts the same class with a more honest
probability, and the net that is trained on it is as accurate. Measurements are in docs/results.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Model = Callable[[NDArray[Any]], NDArray[Any]]

_SHARE = np.float32(0.5)


@dataclass(frozen=True)
class LinearSkip:
    """A fixed head whose outputs are added to a net's logits.

    Attributes:
        weight: V (C, D), for raw tokens.
        bias: v (C,).
    """

    weight: NDArray[Any]
    bias: NDArray[Any]

    @classmethod
    def of_head(cls, head: Mapping[str, NDArray[Any]]) -> Self:
        """Return the skip of a head that gives log-probabilities.

        Args:
            head: ``fc1.weight`` (C, D) and ``fc1.bias`` (C,), of
                :func:`flower_ist.statistics.lda.lda_heads`.
        """
        # In the memory order of a model file, so that both give the same bits.
        return cls(np.ascontiguousarray(head["fc1.weight"]) * _SHARE, head["fc1.bias"] * _SHARE)

    def of(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """Return what is added to the logits (B, C) of tokens (B, D)."""
        added: NDArray[Any] = tokens @ self.weight.T + self.bias
        return added


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the probabilities (B, C) of logits (B, C); each row sums to 1."""
    found: NDArray[Any] = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found


def with_skip(net: Model, skip: LinearSkip | None) -> Model:
    """Return a model whose logits (B, C) are the sum of both; without a skip, the net.

    Args:
        net: gives logits (B, C) for tokens (B, D).
        skip: a fixed head, if there is one.
    """
    if skip is None:
        return net
    return lambda tokens: net(tokens) + skip.of(tokens)
