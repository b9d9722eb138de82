"""Ridge regression for many penalties from one eigendecomposition, and the choice of a penalty.

The equation is ``(A + penalty I) W = B`` with A (D+1, D+1) and B (D+1, C), for tokens of D numbers
and C classes (:func:`ridge_system`). Pure numpy, float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flower_ist.errors import ArgumentError
from flower_ist.statistics.sums import Floats, Head, Statistics, full_gram, linear_head

# Share of N. On 200 random tokens of 1,024 numbers with spread 10 the rounding of int16 changes the
# residual by 5e-4 of N at penalty 1; on others, a residual above 0 only by chance would be best.
_LEAST_RESIDUAL = 1e-3


def ridge_system(statistics: Statistics) -> tuple[Floats, Floats]:
    """Return A (D+1, D+1) and B (D+1, C) of the ridge equation, with a 1 appended to each token.

    A = sum of (x, 1) (x, 1)^T and B = sum of (x, 1) y^T with one-hot y, as in Fed3R (Fani et al.,
    ICML 2024, https://arxiv.org/abs/2406.01116). The row of the appended 1 follows from sums and
    counts, so it is not sent.

    Raises:
        ArgumentError: the statistics have no Gram matrix.
    """
    dim = statistics.sums.shape[1]
    a = np.empty((dim + 1, dim + 1))
    a[:dim, :dim] = full_gram(statistics)
    a[:dim, dim] = a[dim, :dim] = statistics.sums.sum(axis=0)
    a[dim, dim] = statistics.counts.sum()
    b = np.vstack([statistics.sums.T, statistics.counts])
    return a, b


def ridge_head(w: Floats) -> Head:
    """Return the head of a ridge solution (D+1, C)."""
    return linear_head(w[:-1].T, w[-1])


@dataclass(frozen=True)
class RidgePath:
    """The ridge equation ``(A + penalty I) W = B`` for any penalty, with A decomposed once.

    Attributes:
        eigenvalues: (D+1,) e of A = Q diag(e) Q^T, at least 0.
        q: (D+1, D+1) Q.
        rotated: (D+1, C) Q^T B.
    """

    eigenvalues: Floats
    q: Floats
    rotated: Floats

    @classmethod
    def of(cls, statistics: Statistics) -> RidgePath:
        """Return the path of the tokens that were summed; they need a Gram matrix."""
        a, b = ridge_system(statistics)
        eigenvalues, q = np.linalg.eigh(a)
        # Rounding may leave an eigenvalue just below 0.
        return cls(np.maximum(eigenvalues, 0.0), q, q.T @ b)

    def solve(self, penalty: float) -> Floats:
        """Return W (D+1, C), its last row the bias: ``Q diag(1 / (e + penalty)) Q^T B``.

        Raises:
            ArgumentError: the penalty is not above 0.
        """
        if not 0 < penalty < np.inf:
            raise ArgumentError(f"A ridge penalty must be above 0, but is {penalty}.")
        solution: Floats = self.q @ (self.rotated / (self.eigenvalues + penalty)[:, None])
        return solution

    def cross_validation_error(self, penalty: float, num_examples: float) -> float:
        """Return a penalty's error on held-out examples, estimated from the sums alone.

        Generalized cross-validation (Golub, Heath & Wahba, Technometrics 1979,
        https://doi.org/10.1080/00401706.1979.10489751):

            |Y - X W|^2 / N / (1 - df / N)^2,    df = sum e / (e + penalty)

        No example has to be held out for it, and none is sent. The residual |Y - X W|^2 is N minus
        what W explains: a small difference of large numbers, which rounding of the sums may even
        make negative. Where it is at most a thousandth of N, or df is not below N, the sums do not
        determine the error.

        Args:
            penalty: above 0.
            num_examples: N, where B is of one-hot labels.

        Returns:
            The estimate; infinity where the sums do not determine the error.
        """
        shrunk = 1 / (self.eigenvalues + penalty)
        squares = (self.rotated**2).sum(axis=1)
        explained = (squares * (2 - self.eigenvalues * shrunk) * shrunk).sum()
        residual = num_examples - explained
        left = 1 - (self.eigenvalues * shrunk).sum() / num_examples
        if residual <= _LEAST_RESIDUAL * num_examples or left <= 0:
            return np.inf
        return float(residual / num_examples / left**2)

    def best_penalty(self, penalties: Sequence[float], num_examples: float) -> int:
        """Return the index of the penalty with the least error by generalized cross-validation.

        Among equal errors the largest penalty is chosen. This is also the choice where no error can
        be estimated, as with fewer tokens than dimensions: the larger the penalty, the less a head
        learns from the rounding of the sums.
        """
        errors = [self.cross_validation_error(penalty, num_examples) for penalty in penalties]
        return min(range(len(errors)), key=lambda k: (errors[k], -penalties[k]))
