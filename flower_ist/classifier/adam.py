"""Adam over one vector of weights, in blocks that stay in the cache.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015,
https://arxiv.org/abs/1412.6980, algorithm 1. The same steps as torch.optim.Adam.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

# Weights, gradient and both moments of a block take 512 KiB in float32: a core's own cache.
_BLOCK = 32768


class Adam:
    """Adam, started afresh.

    Args:
        weights: (P,), changed in place.
        rates: (count, learning rate) of the vector's consecutive parts.
    """

    def __init__(self, weights: NDArray[Any], rates: Iterable[tuple[int, float]]) -> None:
        self._steps = 0
        # Both moments are kept without their factors (1 - beta), which are part of the step size.
        self._first, self._second = np.zeros_like(weights), np.zeros_like(weights)
        self._blocks = [
            (rate, part, weights[part], self._first[part], self._second[part])
            for part, rate in _blocks(rates)
        ]

    def step(self, gradient: NDArray[Any]) -> None:
        """Take a step; the gradient (P,) is overwritten."""
        self._steps += 1
        root = math.sqrt((1 - BETA2**self._steps) / (1 - BETA2))
        size = root * (1 - BETA1) / (1 - BETA1**self._steps)
        for rate, part, weights, first, second in self._blocks:
            work = gradient[part]
            np.multiply(first, BETA1, out=first)
            np.add(first, work, out=first)
            np.multiply(second, BETA2, out=second)
            np.multiply(work, work, out=work)
            np.add(second, work, out=second)
            np.sqrt(second, out=work)
            np.add(work, EPSILON * root, out=work)
            np.divide(first, work, out=work)
            np.multiply(work, rate * size, out=work)
            np.subtract(weights, work, out=weights)


def _blocks(rates: Iterable[tuple[int, float]]) -> list[tuple[slice, float]]:
    """Divide the parts into blocks; adjacent parts with the same rate are merged."""
    parts: list[tuple[int, int, float]] = []
    end = 0
    for count, rate in rates:
        first, end = end, end + count
        if parts and parts[-1][2] == rate:
            first = parts.pop()[0]
        parts.append((first, end, rate))
    return [
        (slice(start, min(start + _BLOCK, last)), rate)
        for first, last, rate in parts
        for start in range(first, last, _BLOCK)
    ]
