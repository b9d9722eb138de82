"""Encode sums in half of float32's bytes or a quarter, and decode ones that real tokens could have.

n tokens x (D,) with mean m have the Gram matrix G = S + n m m^T, where S = sum (x - m) (x - m)^T is
their scatter. The mean is known from the class sums, so only S is sent: each s_i = sqrt(S_ii) in
float32, and the Cholesky factor L of the correlations R_ij = S_ij / (s_i s_j) in int16. A row of L
has length 1, so its entries lie between -1 and 1 and need no scale: q = round(32767 L).

Rounding changes L by some E whose rows have length at most e = sqrt(D) / 65534, so that

    |S'_ij - S_ij|                        <= s_i s_j (2 e + e^2)
    |sqrt(v^T S' v) - sqrt(v^T S v)|      <= sqrt(D) e |w|,  w_i = s_i v_i, for any direction v

(S' is the decoded scatter; e = 3.0e-4 at D = 384, and actual errors are far smaller because the
errors of many entries cancel.) The second line is why L is sent and not R, which takes as many
bytes. Rounding R changes the *variance* in any direction by some constant. That is negligible for
large variances but as large as the small ones: it may even make them negative, and a ridge head
with a small penalty divides by them. Rounding L changes the variance's *root*, so that small stays
small, and whatever a client sends is the scatter of some tokens, though perhaps not of those of its
class sums: Statistics.why_implausible checks that.

``compact`` does with fewer levels: q = round(512 L), and the decoder divides each row of q by its
own length instead, so that S'_ii = s_i^2 exactly and the bounds hold with e = sqrt(D) / 512 (half
of it by rounding, half by the division). Of the class sums it sends the mean of all tokens and how
far each class's mean lies from it, in 256ths of the standard deviation s_i / sqrt(n). Most of these
numbers are small, and :mod:`flower_ist.wire.squeeze` takes about seven bits for each of L's and ten
for each of a class's mean. At 100 levels ridge on four CIFAR-10 clients loses 0.3 points, at 512
nothing (docs/tables.md).

Sums of squares of tokens far from 0 would lose their spread in float32; here the mean is subtracted
in float64. Pure numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 32_767
COMPACT_LEVELS = 512
_MEAN_LEVELS = 256
_LARGEST = np.iinfo(np.int16).max

# Below this share of G_ii, S_ii is the rounding error of float64 sums for a constant coordinate. A
# real spread this small would also be lost in a float32 G_ii, whose rounding error is 6e-8 of it.
_LEAST_SCATTER = 1e-10

Floats = NDArray[np.float64]


def encode_gram(
    gram: Floats, total: Floats, count: int, levels: int = LEVELS
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Return what is sent of a Gram matrix besides the class sums.

    Args:
        gram: (D, D) sum of x x^T.
        total: (D,) sum of x.
        count: n, the number of tokens; 0 gives zeros.
        levels: what L is multiplied by.

    Returns:
        spreads (D,), the root of each coordinate's scatter, 0 where it never varies; and the lower
        triangle of L, row by row, D (D + 1) / 2 integers.
    """
    scatter = gram - np.outer(total, total) / max(1, count)
    diagonal = np.diagonal(scatter)
    varies = diagonal > _LEAST_SCATTER * np.diagonal(gram)
    spreads = np.sqrt(np.where(varies, diagonal, 0.0)).astype(np.float32)
    sent = spreads.astype(np.float64)
    inverse = np.divide(1.0, sent, out=np.zeros(len(gram)), where=sent > 0)
    # A Cholesky factorization that allows a singular R, as from fewer tokens than coordinates.
    eigenvalues, q = np.linalg.eigh(scatter * inverse[:, None] * inverse)
    root = np.sqrt(np.maximum(eigenvalues, 0.0))[:, None] * q.T  # root^T root = R
    lower = np.asarray(np.linalg.qr(root, mode="r")).T
    lower *= np.where(np.diagonal(lower) < 0, -1, 1)
    # No row is longer than 1, except by rounding.
    whole = np.rint(levels * lower[np.tril_indices(len(gram))]).clip(-levels, levels)
    return spreads, whole.astype(np.int16)


def decode_gram(
    spreads: NDArray[np.float32],
    factor: NDArray[np.int16],
    total: Floats,
    count: float,
    levels: int | None = LEVELS,
) -> Floats:
    """Return the Gram matrix (D, D) from what :func:`encode_gram` returned.

    Args:
        spreads: (D,).
        factor: (D (D + 1) / 2,).
        total: (D,) sum of x, as it was sent: G's mean is then that of the class sums.
        count: number of tokens.
        levels: what L was multiplied by; None divides each row by its own length.
    """
    dim = len(spreads)
    lower = np.zeros((dim, dim))
    lower[np.tril_indices(dim)] = factor
    lengths = np.linalg.norm(lower, axis=1) if levels is None else np.full(dim, float(levels))
    lower *= np.divide(spreads, lengths, out=np.zeros(dim), where=lengths > 0)[:, None]
    gram: Floats = lower @ lower.T
    gram += np.outer(total, total) / max(1.0, count)
    return gram


def encode_means(
    sums: Floats, counts: NDArray[np.int64], spreads: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Return what is sent of class sums (C, D) besides the counts (C,).

    Args:
        sums: of the tokens of each class.
        counts: tokens of each class.
        spreads: (D,) from :func:`encode_gram`.

    Returns:
        The mean of all tokens (D,), and the whole numbers (C, D) of the classes' means.
    """
    count = max(1, int(counts.sum()))
    mean = (sums.sum(axis=0) / count).astype(np.float32)
    away = sums - counts[:, None] * mean.astype(np.float64)
    unit = counts[:, None] * (spreads / (np.sqrt(count) * _MEAN_LEVELS))
    whole = np.rint(np.divide(away, unit, out=np.zeros(sums.shape), where=unit > 0))
    return mean, whole.clip(-_LARGEST, _LARGEST).astype(np.int16)


def decode_means(
    mean: NDArray[np.float32],
    whole: NDArray[np.int16],
    counts: NDArray[np.int64],
    spreads: NDArray[np.float32],
) -> Floats:
    """Return class sums (C, D) from what :func:`encode_means` returned."""
    deviation = spreads / (np.sqrt(max(1.0, float(counts.sum(dtype=np.float64)))) * _MEAN_LEVELS)
    sums: Floats = counts[:, None] * (mean.astype(np.float64) + whole * deviation)
    return sums
