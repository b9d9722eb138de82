"""Linear heads in closed form, from statistics that clients sum up and send once.

On frozen features a linear classifier needs no rounds. A client's statistics are sums over its
tokens x (D,) of C classes:

    counts (C,)        n_c = number of tokens of class c
    sums   (C, D)      s_c = sum of the tokens of class c
    gram   (D, D)      G   = sum of x x^T, as its packed upper triangle of D (D + 1) / 2 numbers

Sums of sums are the sums over all data, so what the server computes from them is what it would
compute from the data themselves, however they are split. Pure numpy, float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATISTICS_KEY = "statistics"
STATISTICS_DTYPE_KEY = "statistics-dtype"
CLASS_SUMS = "class-sums"
CLASS_SUMS_AND_GRAM = "class-sums-and-gram"
WIRE_DTYPES = ("float64", "float32")

# The bias of a class that no client has: it must never win.
_NEVER = -1e4

Floats = NDArray[np.float64]
Head = dict[str, NDArray[np.float32]]


@dataclass
class Statistics:
    """Summed statistics of some tokens: counts (C,) int64, sums (C, D), packed gram or None."""

    counts: NDArray[np.int64]
    sums: Floats
    gram: Floats | None

    @classmethod
    def empty(cls, num_classes: int, dim: int, *, gram: bool) -> Statistics:
        """Return the statistics of no tokens."""
        return cls(
            counts=np.zeros(num_classes, np.int64),
            sums=np.zeros((num_classes, dim)),
            gram=np.zeros(dim * (dim + 1) // 2) if gram else None,
        )

    def add_tokens(self, tokens: NDArray[Any], labels: NDArray[np.integer]) -> None:
        """Add tokens (n, D) with labels (n,). It takes memory for n D and D D float64 numbers."""
        tokens = tokens.astype(np.float64)
        one_hot = (labels[:, None] == np.arange(len(self.counts))).astype(np.float64)
        self.counts += one_hot.sum(axis=0).astype(np.int64)
        self.sums += one_hot.T @ tokens
        if self.gram is not None:
            self.gram += (tokens.T @ tokens)[np.triu_indices(tokens.shape[1])]

    def add(self, other: Statistics) -> None:
        """Add the statistics of other tokens."""
        self.counts += other.counts
        self.sums += other.sums
        if self.gram is not None and other.gram is not None:
            self.gram += other.gram

    def to_tensors(self, dtype: str) -> dict[str, NDArray[Any]]:
        """Return the tensors that travel; all but the counts in a float dtype."""
        tensors: dict[str, NDArray[Any]] = {"counts": self.counts, "sums": self.sums.astype(dtype)}
        if self.gram is not None:
            tensors["gram"] = self.gram.astype(dtype)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Statistics:
        """Return the statistics that some tensors hold; views of them where dtypes allow."""
        gram = tensors.get("gram")
        return cls(
            counts=tensors["counts"].astype(np.int64, copy=False),
            sums=tensors["sums"].astype(np.float64, copy=False),
            gram=None if gram is None else gram.astype(np.float64, copy=False),
        )

    def why_implausible(self, num_examples: float, max_token: float) -> str:
        """Return what cannot be true of sums over tokens of at most ``max_token``, or nothing."""
        # Each count is bounded before they are summed: the sum of huge ones would wrap around.
        wrong = ((self.counts < 0) | (self.counts > num_examples)).any()
        if wrong or self.counts.sum() != num_examples:
            return f"its class counts do not add up to its {num_examples:g} examples"
        if (np.abs(self.sums) > self.counts[:, None] * max_token).any():
            return f"its class sums need tokens above max_token = {max_token:g}"
        if self.gram is not None and (np.abs(self.gram) > num_examples * max_token**2).any():
            return f"its Gram matrix needs tokens above max_token = {max_token:g}"
        return ""


def statistics_layout(
    num_classes: int, dim: int, kind: str, dtype: str
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return dtype and shape of each tensor that :meth:`Statistics.to_tensors` gives."""
    empty = Statistics.empty(num_classes, dim, gram=kind == CLASS_SUMS_AND_GRAM)
    return {name: (t.dtype, t.shape) for name, t in empty.to_tensors(dtype).items()}


def full_gram(statistics: Statistics) -> Floats:
    """Return the Gram matrix (D, D) from its packed upper triangle.

    Raises:
        ValueError: the statistics have none.
    """
    if statistics.gram is None:
        raise ValueError(f"There is no Gram matrix: ask the clients for {CLASS_SUMS_AND_GRAM}.")
    dim = statistics.sums.shape[1]
    gram = np.empty((dim, dim))
    upper = np.triu_indices(dim)
    gram[upper] = gram[upper[::-1]] = statistics.gram
    return gram


def ridge_system(statistics: Statistics) -> tuple[Floats, Floats]:
    """Return A (D+1, D+1) and B (D+1, C) of the ridge equation, a constant 1 behind each token.

    A = sum of (x, 1) (x, 1)^T and B = sum of (x, 1) y^T with one-hot y, as in Fed3R (Fani et al.,
    ICML 2024, https://arxiv.org/abs/2406.01116). The row of the 1 follows from sums and counts, so
    it is not sent.

    Raises:
        ValueError: the statistics have no Gram matrix.
    """
    dim = statistics.sums.shape[1]
    a = np.empty((dim + 1, dim + 1))
    a[:dim, :dim] = full_gram(statistics)
    a[:dim, dim] = a[dim, :dim] = statistics.sums.sum(axis=0)
    a[dim, dim] = statistics.counts.sum()
    b = np.vstack([statistics.sums.T, statistics.counts])
    return a, b


def ridge(a: Floats, b: Floats, penalty: float) -> Floats:
    """Solve ``(A + penalty I) W = B``; W is (D+1, C), its last row the bias.

    Raises:
        ValueError: the penalty is not above 0.
    """
    return ridge_path(a, b, [penalty])[0]


def ridge_path(a: Floats, b: Floats, penalties: Sequence[float]) -> list[Floats]:
    """Solve the ridge equation for many penalties with one eigendecomposition of A.

    With A = Q diag(e) Q^T the solution is ``Q diag(1 / (e + penalty)) Q^T B``.

    Raises:
        ValueError: a penalty is not above 0.
    """
    if not all(0 < penalty < np.inf for penalty in penalties):
        raise ValueError(f"Ridge penalties must be above 0, but are {list(penalties)}.")
    eigenvalues, q = np.linalg.eigh(a)
    # Rounding may leave an eigenvalue just below 0.
    eigenvalues = np.maximum(eigenvalues, 0.0)
    rotated = q.T @ b
    return [q @ (rotated / (eigenvalues + penalty)[:, None]) for penalty in penalties]


def ridge_head(w: Floats) -> Head:
    """Return the head of a ridge solution (D+1, C)."""
    return linear_head(w[:-1].T, w[-1])


def class_means_head(statistics: Statistics) -> Head:
    """Return the head whose rows are the class means, each of length 1, without a bias.

    FedNCM: Legate et al., "Guiding The Last Layer in Federated Learning with Pre-Trained Models",
    NeurIPS 2023, https://arxiv.org/abs/2306.03937; the means at length 1 as in ``FedNCMServer`` of
    https://github.com/dipamgoswami/FedCOF.
    """
    counts = statistics.counts[:, None]
    means = statistics.sums / np.maximum(counts, 1)
    return linear_head(_unit_rows(means), np.where(statistics.counts > 0, 0.0, _NEVER))


def fedcof_head(clients: Sequence[Statistics], shrinkage: float = 1.0) -> Head:
    """Return a ridge-like head whose Gram matrix is estimated from the clients' class means alone.

    FedCOF: Goswami et al., "Covariances for Free", NeurIPS 2025, https://arxiv.org/abs/2412.14326;
    formulas as in ``FedCOFServer`` of https://github.com/dipamgoswami/FedCOF. Client k has n_kc
    tokens of class c with mean m_kc, K_c clients have class c, N_c tokens in all with mean m_c:

        S_c = 1 / (K_c - 1) sum_k n_kc (m_kc - m_c) (m_kc - m_c)^T + shrinkage I
        G   = N m m^T + sum_c (N_c - 1) S_c,       W = G^+ [N_c m_c]_c,  each class at length 1

    S_c is unbiased for the class' covariance where the clients' tokens of a class are drawn from
    one distribution. There is no bias term, and with K_c = 1 the first part of S_c is 0.

    Args:
        clients: each client's counts and sums; they need no Gram matrix.
        shrinkage: gamma in the paper, 1 by default as there.
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
    return linear_head(_unit_rows(w), np.where(class_counts > 0, 0.0, _NEVER))


def linear_head(weight: Floats, bias: Floats) -> Head:
    """Return an MLP without hidden layers, as :class:`flower_ist.model.MLP` reads it.

    Args:
        weight: (C, D).
        bias: (C,).
    """
    return {"fc1.weight": weight.astype(np.float32), "fc1.bias": bias.astype(np.float32)}


def _unit_rows(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = rows / np.maximum(lengths, 1e-12)
    return unit
