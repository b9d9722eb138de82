"""Encode a covariance's Cholesky factor in one byte per number, and decode it, for sampling.

Row i = 1 .. D of the factor L has i numbers. They are sent as integers from -127 to 127 with one
scale t_i >= max_j |L_ij| / 127 in float16. Each decoded number is off by at most t_i / 2, and the
row by a vector of length at most r_i = sqrt(i) t_i / 2. So, with S = L L^T and s_i = sqrt(S_ii),

    |S'_ij - S_ij| <= s_i r_j + s_j r_i + r_i r_j

Actual errors are far smaller because the errors of many numbers cancel. Whatever was sent, L' L'^T
is a covariance. (int8 in :mod:`flower_ist.wire.quantize` would also send the zeros above the
diagonal.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEVELS = 127


def encode_factor(
    factor: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float16], NDArray[np.int8]]:
    """Return the scales (D,) of a lower triangle (D, D), and its numbers, row by row.

    Args:
        factor: its magnitudes must fit into float16.
    """
    exact = np.abs(factor).max(axis=1) / np.float64(_LEVELS)
    scales = exact.astype(np.float16)
    # Rounded up, so that no number exceeds 127.
    scales = np.where(scales < exact, np.nextafter(scales, np.float16(np.inf)), scales)
    rows = scales.astype(np.float64)[:, None]
    whole = np.rint(np.divide(factor, rows, out=np.zeros(factor.shape), where=rows > 0))
    return scales, whole[np.tril_indices(len(factor))].astype(np.int8)


def decode_factor(scales: NDArray[np.float16], numbers: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the lower triangle (D, D) from what :func:`encode_factor` returned."""
    dim = len(scales)
    factor = np.zeros((dim, dim), np.float32)
    factor[np.tril_indices(dim)] = numbers
    factor *= scales.astype(np.float32)[:, None]
    return factor
