"""A closed-form ridge head inside the classifier: the net learns what ridge regression misses.

Ridge regression on one-hot labels estimates the probabilities of the classes in closed form,
independently of the split (:mod:`flower_ist.statistics.sums`). A fixed multiple of its outputs is
added to the net's logits, in the loss and in every prediction:

    logits(x) = net(x) + s (V x + v),      s = ridge_skip ln C

So training begins where ridge regression ends, as boosting does with its next learner. ``s`` turns
estimates of probabilities into logits: at ``ridge_skip`` = 4 an output that is 1 for one class and
0 for the others gives that class a probability of about 1 - C^-3. Measurements are in
docs/results.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Model = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class RidgeSkip:
    """A fixed head whose outputs are added to a net's logits.

    Attributes:
        weight: s V (C, D), for raw tokens.
        bias: s v (C,).
    """

    weight: NDArray[Any]
    bias: NDArray[Any]

    @classmethod
    def of_head(cls, head: Mapping[str, NDArray[Any]], ridge_skip: float) -> Self:
        """Return the skip of a ridge head of :func:`flower_ist.statistics.sums.linear_head`.

        Args:
            head: ``fc1.weight`` (C, D) and ``fc1.bias`` (C,).
            ridge_skip: above 0, in multiples of ln C.
        """
        scale = np.float32(ridge_skip * math.log(max(2, len(head["fc1.bias"]))))
        # In the memory order of a model file, so that both give the same bits.
        return cls(np.ascontiguousarray(head["fc1.weight"]) * scale, head["fc1.bias"] * scale)

    def of(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """Return what is added to the logits (B, C) of tokens (B, D)."""
        added: NDArray[Any] = tokens @ self.weight.T + self.bias
        return added


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the probabilities (B, C) of logits (B, C); each row sums to 1."""
    found: NDArray[Any] = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found


def with_skip(net: Model, skip: RidgeSkip | None) -> Model:
    """Return a model whose logits (B, C) are the sum of both; without a skip, the net.

    Args:
        net: gives logits (B, C) for tokens (B, D).
        skip: a fixed head, if there is one.
    """
    if skip is None:
        return net
    return lambda tokens: net(tokens) + skip.of(tokens)
