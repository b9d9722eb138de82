"""A Gram matrix in half of float32's bytes, and back to one that real tokens could have.

n tokens x (D,) with mean m have the Gram matrix G = S + n m m^T, where S = sum (x - m) (x - m)^T is
their scatter. The mean is known from the class sums, so only S travels: each s_i = sqrt(S_ii) in
float32, and the Cholesky factor L of the correlations R_ij = S_ij / (s_i s_j) in int16. A row of L
has length 1, so its entries lie between -1 and 1 and need no scale: q = round(32767 L).

Rounding moves L by some E whose rows are no longer than e = sqrt(D) / 65534, so that

    |S'_ij - S_ij|                        <= s_i s_j (2 e + e^2)
    |sqrt(v^T S' v) - sqrt(v^T S v)|      <= sqrt(D) e |w|,  w_i = s_i v_i, for any direction v

(S' = what is read back; e = 3.0e-4 at D = 384, and what is met is far below: errors of many entries
cancel.) The second line is why L travels and not R, which takes the same bytes. Rounding R moves
the *variance* in any direction by some constant, which is nothing beside the large ones but all of
the small ones; it may even leave it below 0, and a ridge head with a small penalty divides by it.
Rounding L moves its *root*, so that small stays small, and whatever a client sends is the scatter
of some tokens, if not of those of its class sums: Statistics.why_implausible looks at that.

Sums of squares of tokens far from 0 would lose their spread in float32; the mean that is taken off
here is taken off in float64. Pure numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 32_767

# Below this share of G_ii, S_ii is what float64 sums leave of a coordinate that never varies. A
# real one this small would be lost in float32's G_ii as well, whose rounding is 6e-8 of it.
_LEAST_SCATTER = 1e-10

Floats = NDArray[np.float64]


def encode_gram(
    gram: Floats, total: Floats, count: int
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Return what travels of a Gram matrix besides the class sums.

    Args:
        gram: (D, D) sum of x x^T.
        total: (D,) sum of x.
        count: n, the number of tokens; 0 gives zeros.

    Returns:
        spreads (D,), the root of each coordinate's scatter, 0 where it never varies; and the lower
        triangle of L, row by row, D (D + 1) / 2 whole numbers.
    """
    scatter = gram - np.outer(total, total) / max(1, count)
    diagonal = np.diagonal(scatter)
    varies = diagonal > _LEAST_SCATTER * np.diagonal(gram)
    spreads = np.sqrt(np.where(varies, diagonal, 0.0)).astype(np.float32)
    sent = spreads.astype(np.float64)
    inverse = np.divide(1.0, sent, out=np.zeros(len(gram)), where=sent > 0)
    # A Cholesky factorization that takes a singular R: of fewer tokens than coordinates, say.
    eigenvalues, q = np.linalg.eigh(scatter * inverse[:, None] * inverse)
    root = np.sqrt(np.maximum(eigenvalues, 0.0))[:, None] * q.T  # root^T root = R
    lower = np.asarray(np.linalg.qr(root, mode="r")).T
    lower *= np.where(np.diagonal(lower) < 0, -1, 1)
    # No row is longer than 1, but for rounding.
    whole = np.rint(LEVELS * lower[np.tril_indices(len(gram))]).clip(-LEVELS, LEVELS)
    return spreads, whole.astype(np.int16)


def decode_gram(
    spreads: NDArray[np.float32], factor: NDArray[np.int16], total: Floats, count: float
) -> Floats:
    """Return the Gram matrix (D, D) of what :func:`encode_gram` returned.

    Args:
        spreads: (D,).
        factor: (D (D + 1) / 2,).
        total: (D,) sum of x, as it travelled: G's mean is then that of the class sums.
        count: number of tokens.
    """
    dim = len(spreads)
    lower = np.zeros((dim, dim))
    lower[np.tril_indices(dim)] = factor
    lower *= spreads.astype(np.float64)[:, None] / LEVELS
    gram: Floats = lower @ lower.T
    gram += np.outer(total, total) / max(1.0, count)
    return gram
