"""What tokens are standardized by: mean and spread of all clients' tokens, from their sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flower_ist.statistics.sums import Statistics

# A constant coordinate stays 0 instead of causing a division by 0. Sums in float32 give a constant
# of size 1 a spread of up to 4e-4, by rounding alone, as the root of E[x^2] - E[x]^2.
_LEAST_SPREAD = 1e-6
_LEAST_RELATIVE_SPREAD = 1e-3


@dataclass(frozen=True)
class TokenScale:
    """What tokens are standardized by: ``(x - mean) / spread``.

    Attributes:
        mean: (D,).
        spread: (D,) above 0.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, statistics: Statistics) -> TokenScale:
        """Return the mean and standard deviation of the tokens that were summed.

        Args:
            statistics: with a Gram matrix, of at least one token.
        """
        total = statistics.counts.sum()
        mean = statistics.sums.sum(axis=0) / total
        squares = np.maximum(statistics.squares() / total, 0.0)
        spread = np.sqrt(np.maximum(squares - mean**2, 0.0))
        least = np.maximum(_LEAST_SPREAD, _LEAST_RELATIVE_SPREAD * np.sqrt(squares))
        return cls(mean, np.where(spread > least, spread, 1.0))

    @classmethod
    def none(cls, dim: int) -> TokenScale:
        """Return the scale that leaves tokens of D numbers unchanged."""
        return cls(np.zeros(dim), np.ones(dim))
