"""Encode a Gram matrix in half of float32's bytes, and decode one that real tokens could have.

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

Sums of squares of tokens far from 0 would lose their spread in float32; here the mean is subtracted
in float64. Pure numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 32_767

# Below this share of G_ii, S_ii is the rounding error of float64 sums for a constant coordinate. A
# real spread this small would also be lost in a float32 G_ii, whose rounding error is 6e-8 of it.
_LEAST_SCATTER = 1e-10

Floats = NDArray[np.float64]


def encode_gram(
    gram: Floats, total: Floats, count: int
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Return what is sent of a Gram matrix besides the class sums.

    Args:
        gram: (D, D) sum of x x^T.
        total: (D,) sum of x.
        count: n, the number of tokens; 0 gives zeros.

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
    whole = np.rint(LEVELS * lower[np.tril_indices(len(gram))]).clip(-LEVELS, LEVELS)
    return spreads, whole.astype(np.int16)


def decode_gram(
    spreads: NDArray[np.float32], factor: NDArray[np.int16], total: Floats, count: float
) -> Floats:
    """Return the Gram matrix (D, D) from what :func:`encode_gram` returned.

    Args:
        spreads: (D,).
        factor: (D (D + 1) / 2,).
        total: (D,) sum of x, as it was sent: G's mean is then that of the class sums.
        count: number of tokens.
    """
    dim = len(spreads)
    lower = np.zeros((dim, dim))
    lower[np.tril_indices(dim)] = factor
    lower *= spreads.astype(np.float64)[:, None] / LEVELS
    gram: Floats = lower @ lower.T
    gram += np.outer(total, total) / max(1.0, count)
    return gram
