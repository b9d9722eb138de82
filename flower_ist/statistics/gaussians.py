"""One Gaussian per class: how a client's class shares differ from the global ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ClassGaussians:
    """A Gaussian for each class of the standardized tokens, with one covariance.

    Attributes:
        shares: (C,) share of the examples that each class has; they sum to 1.
        means: (C, D) mean of each class's tokens; 0 for a class without tokens.
        factor: (r, D) directions whose outer products add up to the covariance within a class,
            pooled over the classes; the longest comes first.
        rest: (D,) standard deviations of what varies beside them, each number on its own. Without
            it virtual tokens would be told apart from real ones by what does not vary.
    """

    shares: Floats
    means: Floats
    factor: Floats
    rest: Floats

    def shortfall(self, label_counts: NDArray[np.integer]) -> tuple[float, NDArray[np.float64]]:
        """Return how much a client's class shares differ from the global ones, and what it lacks.

        With p the global class shares and p_k the client's own, the share of virtual examples is
        the total variation distance v = 1/2 sum_c |p_c - p_kc|. Their classes are drawn in
        proportion to max(0, p_c - (1 - v) p_kc), which fills up the classes of which the client has
        too few. Equal shares give v = 0: without skew there are no virtual examples.

        Args:
            label_counts: (C,) the client's examples of each class.

        Returns:
            v, from 0 to 1, and probabilities (C,) that sum to 1.
        """
        whole = self.shares.astype(np.float64)
        own = label_counts / max(1, label_counts.sum())
        share = min(1.0, 0.5 * float(np.abs(whole - own).sum()))
        lacking = np.maximum(0.0, whole - (1 - share) * own)
        lacking = lacking if lacking.sum() > 0 else whole
        return share, lacking / lacking.sum()

    def draw(self, classes: NDArray[np.integer], generator: np.random.Generator) -> Floats:
        """Draw one virtual standardized token for each class given.

        Args:
            classes: (n,).
            generator: the random number generator.

        Returns:
            (n, D) float32.
        """
        noise = generator.standard_normal((len(classes), len(self.factor)), dtype=np.float32)
        virtual: Floats = noise @ self.factor
        virtual += self.rest * generator.standard_normal(virtual.shape, dtype=np.float32)
        virtual += self.means[classes]
        return virtual
