"""Check a bound that is a multiple of the median client's: 0 for none, or at least 1."""

from __future__ import annotations

import math

from flower_ist.errors import ArgumentError


def check_bound(name: str, bound: float) -> float:
    """Return the bound if it is valid.

    Below 1 it would refuse ordinary updates, or count half of the clients for less than they have.

    Args:
        name: of the argument.
        bound: how many times the median.

    Raises:
        ArgumentError: it is neither 0 (no bound) nor a number from 1.
    """
    if bound != 0 and not 1 <= bound < math.inf:
        raise ArgumentError(f"{name} is {bound}, but must be at least 1, or 0 for no bound.")
    return bound
