"""The middle of several holders' values, entry by entry: median and trimmed mean. Pure numpy.

Both are one formula: of an entry's n values, sorted, some are left out at each end and the rest is
averaged.

* ``median``: all but the middle one or two;
* ``trimmed-mean:0.25``: ``floor(0.25 n)`` at each end, or with another share.

Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018, https://arxiv.org/abs/1803.01498,
definitions 1 and 2. There every client holds every weight. Here a weight has the holders that it
has: with one, its value is taken as it is, and with two no rule can say which of them lies. As many
liars as are left out at each end cannot move an entry out of the range of the honest values.

Every holder counts once: a number of examples is a claim, and weights by claims would give a liar
as many votes as it asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import ArgumentError

# Number of an entry's values -> how many are left out at each end.
Trim = Callable[[int], int]


def trim_for(merge_rule: str) -> Trim | None:
    """Return what a merge rule leaves out; None for ``mean``, which leaves out nothing.

    Args:
        merge_rule: ``mean``, ``median``, or ``trimmed-mean:0.25`` with the share of the values that
            is cut off at each end, 0 to below 0.5.

    Raises:
        ArgumentError: there is no such rule.
    """
    if merge_rule == "mean":
        return None
    if merge_rule == "median":
        return _all_but_the_middle
    rule, _, text = merge_rule.partition(":")
    try:
        share = float(text) if rule == "trimmed-mean" else math.nan
    except ValueError:
        share = math.nan
    if not 0 <= share < 0.5:
        raise ArgumentError(
            f"merge_rule is {merge_rule!r}, but must be mean, median, or trimmed-mean:0.25 with "
            "the share cut off at each end, which must be at least 0 and below 0.5."
        )
    return partial(_share_of, share)


def middle(stack: NDArray[Any], trim: Trim) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the mean of the values of each entry that a rule keeps, and the number of its holders.

    Equal values give that value exactly. It takes memory for about four float64 copies of the
    stack.

    Args:
        stack: values (m, ...) of m holders; NaN where one does not hold the entry.
        trim: from :func:`trim_for`.

    Returns:
        The middle (...), NaN where nobody holds the entry, and the number of holders (...).
    """
    ordered = np.sort(stack.astype(np.float64), axis=0)  # NaN comes last
    holders = (~np.isnan(ordered)).sum(axis=0)
    trimmed = np.array([trim(number) if number else 0 for number in range(len(stack) + 1)])[holders]
    ranks = np.arange(len(stack)).reshape(-1, *[1] * (stack.ndim - 1))
    kept = (ranks >= trimmed) & (ranks < holders - trimmed)
    lowest = np.take_along_axis(ordered, trimmed[None], axis=0)[0]
    above = np.where(kept, ordered - lowest, 0.0).sum(axis=0)
    return lowest + above / np.maximum(holders - 2 * trimmed, 1), holders


def _all_but_the_middle(number: int) -> int:
    return (number - 1) // 2


def _share_of(share: float, number: int) -> int:
    """Return ``floor(share * number)``, exact for a decimal share: 0.29 of 100 are 29."""
    return math.floor(Fraction(str(share)) * number)
