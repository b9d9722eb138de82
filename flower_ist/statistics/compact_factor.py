"""Encode the principal directions of a covariance in a byte per number, and decode them.

A covariance S (D, D) has eigenvectors v_k and eigenvalues l_k, largest first. Sent are the columns
f_k = sqrt(l_k) v_k, whose outer products add up to S, as whole numbers with one step for all:

    q = round(f / step)        step = sqrt(trace(S) / D) / 32, or max|f| / 127 if that is larger

Rounding adds about D step^2 / 12 to a direction's square. Directions whose own square is below
twice that would say little, and are left out, and the rest are far from dependent on each other. Of
the 384 directions of CIFAR-10's tokens 302 are kept. What was sent is a covariance whatever the
numbers are, and each is off by at most step / 2.

Two things use the directions. Virtual tokens are drawn along them, for which a step twice as long
is too coarse (docs/method.md). And :mod:`flower_ist.wire.compact` measures along them how a change
of weights changes what a neuron computes; there it matters only that both ends have the very same
numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEVELS = 127
_STEPS_A_DEVIATION = 32


def directions_of(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sqrt(l_k) v_k as rows (D, D), largest first; eigenvalues below 0 count as 0."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    rows: NDArray[np.float64] = (vectors * np.sqrt(np.maximum(eigenvalues, 0.0))).T[::-1]
    return rows


def encode_factor(
    directions: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return the step (1,) and the numbers (D, D) of directions (r, D), with rows of 0 behind.

    Args:
        directions: at most D; their magnitudes must fit into float32.
    """
    dim = directions.shape[1]
    exact = directions.astype(np.float64)
    deviation = np.sqrt((exact**2).sum() / dim)
    step = np.float32(max(deviation / _STEPS_A_DEVIATION, np.abs(exact).max(initial=0) / _LEVELS))
    # Rounded up, so that no number exceeds 127.
    step = np.nextafter(step, np.float32(np.inf)) if step > 0 else step
    whole = np.zeros((dim, dim), np.int8)
    if step > 0:
        kept = exact[(exact**2).sum(axis=1) > 2 * noise_of_step(step, dim)]
        whole[: len(kept)] = np.rint(kept / step)
    return np.array([step], np.float32), whole


def noise_of_step(step: np.floating[Any], dim: int) -> float:
    """Return what rounding adds to the square of a direction of D numbers."""
    return dim * float(step) ** 2 / 12


def decode_factor(step: NDArray[np.float32], numbers: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the directions (r, D) that are not 0, from what :func:`encode_factor` returned."""
    kept = numbers[numbers.any(axis=1)]
    return kept * step
