"""A Gaussian head from summed statistics: linear discriminant analysis. Pure numpy, float64.

Every class is a Gaussian with its own mean m_c and a shared covariance S. The classes'
log-posteriors are then linear in a token x:

    log p(c | x) = m_c^T S^-1 x - 1/2 m_c^T S^-1 m_c + log(n_c / N) + a term independent of c

Means, covariance and shares follow from the sums that ridge regression asks for, so the head costs
no extra bytes. It is the Gaussian head of GH-OFL ("one-shot federated learning with Gaussian
heads", https://arxiv.org/abs/2602.01186), with the covariance shrunk as in :func:`oas_shrinkage`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flower_ist.statistics.sums import Floats, Head, Statistics, full_gram, linear_head

# The bias of a class that no client has: it must never be predicted.
_NEVER = -1e4


def lda_head(
    statistics: Statistics,
    score: Callable[[Head], float] | None = None,
    shrinkages: Sequence[float] = (0.0, 0.01, 0.03, 0.1, 0.3),
) -> Head:
    """Return the head of linear discriminant analysis.

    Args:
        statistics: sums over all clients' tokens, with the Gram matrix.
        score: gives a head's score on validation data, higher is better. With it the best of
            ``shrinkages`` and :func:`oas_shrinkage` is used, without it the latter.
        shrinkages: 0 to 1.

    Raises:
        ArgumentError: the statistics have no Gram matrix.
    """
    covariance = within_class_covariance(statistics)
    oas = oas_shrinkage(covariance, float(statistics.counts.sum()))
    if score is None:
        return _head(statistics, covariance, oas)
    heads = [_head(statistics, covariance, shrinkage) for shrinkage in (oas, *shrinkages)]
    return heads[int(np.argmax([score(head) for head in heads]))]


def within_class_covariance(statistics: Statistics) -> Floats:
    """Return S (D, D), the covariance around the class means: ``(G - sum_c n_c m_c m_c^T) / N``."""
    held = statistics.counts > 0
    roots = statistics.sums[held] / np.sqrt(statistics.counts[held, None])
    covariance: Floats = (full_gram(statistics) - roots.T @ roots) / statistics.counts.sum()
    return covariance


def oas_shrinkage(covariance: Floats, num_examples: float) -> float:
    """Return how far to shrink S toward a multiple of the identity, 0 to 1, from S alone.

    ``S' = (1 - r) S + r tr(S) / D I`` with the r of the oracle approximating shrinkage estimator
    (Chen, Wiesel, Eldar & Hero, IEEE Trans. Signal Processing 2010,
    https://arxiv.org/abs/0907.4698, equation 23), which assumes Gaussian tokens.

    Args:
        covariance: S (D, D).
        num_examples: N.
    """
    dim = len(covariance)
    of_square, square_of = float((covariance**2).sum()), float(np.trace(covariance)) ** 2
    below = (num_examples + 1 - 2 / dim) * (of_square - square_of / dim)
    return 1.0 if below <= 0 else min(1.0, ((1 - 2 / dim) * of_square + square_of) / below)


def _head(statistics: Statistics, covariance: Floats, shrinkage: float) -> Head:
    dim, counts = len(covariance), statistics.counts
    # Zero variance, as of identical tokens, must not cause a division by 0.
    sphere = max(float(np.trace(covariance)) / dim, 1e-12)
    shrunk = (1 - shrinkage) * covariance
    shrunk[np.diag_indices(dim)] += shrinkage * sphere + 1e-9 * sphere
    means = statistics.sums / np.maximum(counts, 1)[:, None]
    weight: Floats = np.linalg.solve(shrunk, means.T).T.astype(np.float64, copy=False)
    shares = np.log(np.maximum(counts, 1) / counts.sum())
    bias = np.where(counts > 0, shares - 0.5 * (weight * means).sum(axis=1), _NEVER)
    return linear_head(weight, bias)
