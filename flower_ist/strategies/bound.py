"""Check a bound that is a multiple of the median client's: 0 for none, or at least 1."""

from __future__ import annotations

import math

from flower_ist.errors import ArgumentError

FEWEST_TO_COMPARE = 3
"""Of two clients neither is the outlier."""


def check_bound(name: str, bound: float, below_one: str) -> float:
    """Return the bound if it is valid.

    Args:
        name: of the argument.
        bound: how many times the median.
        below_one: what a bound below 1 would do.

    Raises:
        ArgumentError: it is neither 0 (no bound) nor a number from 1.
    """
    if bound != 0 and not 1 <= bound < math.inf:
        raise ArgumentError(
            f"{name} is {bound}, but must be at least 1, or 0 for no bound: below 1 {below_one}."
        )
    return bound
