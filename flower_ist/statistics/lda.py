"""A Gaussian head from summed statistics: linear discriminant analysis. Pure numpy, float64.

Every class is a Gaussian with its own mean m_c and a shared covariance S. The classes'
log-posteriors are then linear in a token x:

    log p(c | x) = m_c^T S^-1 x - 1/2 m_c^T S^-1 m_c + log(n_c / N) + a term independent of c

Means, covariance and shares follow from the sums that ridge regression asks for, so the head costs
no extra bytes. It is the Gaussian head of GH-OFL ("one-shot federated learning with Gaussian
heads", https://arxiv.org/abs/2602.01186). With few tokens per dimension S must be regularized:
``S + penalty / N I``, with ridge regression's penalty. Ridge's matrix is N times that, with the
total covariance in place of S. The two differ only in the directions of the class means, so the
same directions are noise for both, and a penalty that suits ridge suits this head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flower_ist.statistics.sums import (
    NEVER,
    Head,
    Statistics,
    linear_head,
    within_class_covariance,
)


def lda_heads(statistics: Statistics, penalties: Sequence[float]) -> list[Head]:
    """Return the head of linear discriminant analysis for each penalty.

    Args:
        statistics: sums over all clients' tokens, with the Gram matrix.
        penalties: each above 0.

    Raises:
        ArgumentError: the statistics have no Gram matrix.
    """
    counts = statistics.counts
    total = counts.sum()
    eigenvalues, q = np.linalg.eigh(within_class_covariance(statistics))
    # Rounding, or a dishonest client, may leave an eigenvalue below 0.
    eigenvalues = np.maximum(eigenvalues, 0.0)
    means = statistics.means()
    rotated, shares = means @ q, np.log(np.maximum(counts, 1) / total)
    heads = []
    for penalty in penalties:
        weight = (rotated / (eigenvalues + penalty / total)) @ q.T
        bias = np.where(counts > 0, shares - 0.5 * (weight * means).sum(axis=1), NEVER)
        heads.append(linear_head(weight, bias))
    return heads
