"""Linear heads from the clients' class means alone: FedNCM and FedCOF. Pure numpy, float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flower_ist.statistics.sums import NEVER, Floats, Head, Statistics, linear_head


def class_means_head(statistics: Statistics) -> Head:
    """Return the head whose rows are the class means, scaled to length 1, without a bias.

    FedNCM: Legate et al., "Guiding The Last Layer in Federated Learning with Pre-Trained Models",
    NeurIPS 2023, https://arxiv.org/abs/2306.03937; the means are scaled to length 1 as in
    ``FedNCMServer`` of https://github.com/dipamgoswami/FedCOF.
    """
    return linear_head(_unit_rows(statistics.means()), np.where(statistics.counts > 0, 0.0, NEVER))


def fedcof_head(clients: Sequence[Statistics], shrinkage: float = 1.0) -> Head:
    """Return a ridge-like head whose Gram matrix is estimated from the clients' class means alone.

    FedCOF: Goswami et al., "Covariances for Free", NeurIPS 2025, https://arxiv.org/abs/2412.14326;
    formulas as in ``FedCOFServer`` of https://github.com/dipamgoswami/FedCOF. Client k has n_kc
    tokens of class c with mean m_kc; K_c clients have class c, with N_c tokens in all and mean m_c:

        S_c = 1 / (K_c - 1) sum_k n_kc (m_kc - m_c) (m_kc - m_c)^T + shrinkage I
        G   = N m m^T + sum_c (N_c - 1) S_c,       W = G^+ [N_c m_c]_c,  each class at length 1

    S_c is an unbiased estimate of the class's covariance if the clients' tokens of a class are
    drawn from one distribution. There is no bias term, and with K_c = 1 the first part of S_c is 0.

    Args:
        clients: each client's counts and sums; they need no Gram matrix.
        shrinkage: gamma in the paper; 1 by default, as in the paper.
    """
    counts = np.stack([client.counts for client in clients])
    sums = np.stack([client.sums for client in clients])
    class_counts, class_sums = counts.sum(axis=0), sums.sum(axis=0)
    total = class_counts.sum()
    mean = class_sums.sum(axis=0) / total
    gram = total * np.outer(mean, mean)
    for c in np.flatnonzero(class_counts):
        holders = counts[:, c] > 0
        sizes = counts[holders, c][:, None]
        offsets = sums[holders, c] / sizes - class_sums[c] / class_counts[c]
        offsets *= np.sqrt(sizes)
        covariance = offsets.T @ offsets / max(1, len(sizes) - 1)
        gram += (class_counts[c] - 1) * (covariance + shrinkage * np.eye(len(mean)))
    w = class_sums @ np.linalg.pinv(gram, hermitian=True)
    return linear_head(_unit_rows(w), np.where(class_counts > 0, 0.0, NEVER))


def _unit_rows(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = rows / np.maximum(lengths, 1e-12)
    return unit
