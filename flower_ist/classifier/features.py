"""Random features in addition to the tokens, made from a seed and never sent. Pure numpy.

    features(x) = [x, max(0, A x + b)]          A (F, D) ~ N(0, 1 / D),  b (F,) ~ U(-1, 1)

A linear head on them is a net with one hidden layer that is not trained (random kitchen sinks,
Rahimi & Recht, NeurIPS 2008; an "extreme learning machine", Huang et al. 2006). A and b follow from
the seed, so only the head crosses the wire. As x = ReLU(x) - ReLU(-x), the whole is an ordinary MLP
with F + 2 D hidden neurons: :meth:`RandomFeatures.fold`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import ArgumentError

Floats = NDArray[np.float32]
_STREAM = 3  # separate from all other random streams of a run's seed


@dataclass(frozen=True)
class RandomFeatures:
    """A hidden layer that is drawn at random, not trained.

    Attributes:
        weight: A (F, D).
        bias: b (F,).
    """

    weight: Floats
    bias: Floats

    @classmethod
    def draw(cls, seed: int, width: int, dim: int) -> Self:
        """Return F features of tokens of D numbers, the same anywhere for the same seed.

        Raises:
            ArgumentError: the width is not above 0.
        """
        if width < 1:
            raise ArgumentError(f"The number of random features must be above 0, not {width}.")
        generator = np.random.Generator(np.random.PCG64([seed, _STREAM]))
        weight = generator.standard_normal((width, dim), dtype=np.float32) / np.sqrt(dim)
        bias = generator.uniform(-1, 1, width).astype(np.float32)
        return cls(weight.astype(np.float32), bias)

    @property
    def dim(self) -> int:
        """The number of features that :meth:`of` returns per token: D + F."""
        return sum(self.weight.shape)

    def of(self, tokens: Floats) -> Floats:
        """Return the features (n, D + F) of tokens (n, D)."""
        hidden = tokens @ self.weight.T
        hidden += self.bias
        np.maximum(hidden, 0, out=hidden)
        return np.concatenate([tokens, hidden], axis=1)

    def fold(self, head: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the MLP with one hidden layer that is equivalent to a linear head on the features.

        Args:
            head: ``fc1.weight`` (C, D + F) and ``fc1.bias`` (C,).

        Returns:
            ``fc1`` (F + 2 D, D) and ``fc2`` (C, F + 2 D): its output is ``head(of(x))``.
        """
        dim = self.weight.shape[1]
        on_tokens, on_hidden = head["fc1.weight"][:, :dim], head["fc1.weight"][:, dim:]
        same = np.eye(dim, dtype=np.float32)
        return {
            "fc1.weight": np.concatenate([self.weight, same, -same]),
            "fc1.bias": np.concatenate([self.bias, np.zeros(2 * dim, np.float32)]),
            "fc2.weight": np.concatenate([on_hidden, on_tokens, -on_tokens], axis=1),
            "fc2.bias": head["fc1.bias"],
        }
