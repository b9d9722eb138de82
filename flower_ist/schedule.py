"""What changes from round to round: learning rate, local steps, slices. By round alone.

Rounds count from 1 to ``num_rounds``, as Flower's do. Nothing is kept between rounds, so a run that
goes on after a stop follows the same schedule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def cosine(server_round: int, num_rounds: int, first: float, last: float) -> float:
    """Return what falls from ``first`` in round 1 to ``last`` in the last round, as half a cosine.

    Loshchilov & Hutter, SGDR, ICLR 2017, https://arxiv.org/abs/1608.03983, equation 5, without
    restarts and with rounds in place of epochs. Both ends are exact; a single round has ``first``.

    Raises:
        ValueError: the run has no such round.
    """
    _check_round(server_round, num_rounds)
    if num_rounds == 1:
        return first
    weight = (1 + math.cos(math.pi * (server_round - 1) / (num_rounds - 1))) / 2
    return weight * first + (1 - weight) * last


def stretch(server_round: int, num_rounds: int, values: Sequence[int]) -> int:
    """Return the value of the round: each value holds for an equal stretch of the rounds, in turn.

    Lengths of stretches differ by at most one round: three values in 10 rounds hold for 4, 3 and 3.

    Raises:
        ValueError: the run has no such round, or fewer rounds than values.
    """
    _check_round(server_round, num_rounds)
    if not 1 <= len(values) <= num_rounds:
        raise ValueError(
            f"{num_rounds} rounds cannot be divided into {len(values)} stretches: give at least "
            "one value, and at most as many as there are rounds."
        )
    return values[(server_round - 1) * len(values) // num_rounds]


def _check_round(server_round: int, num_rounds: int) -> None:
    if not 1 <= server_round <= num_rounds:
        raise ValueError(f"There is no round {server_round} in a run of {num_rounds} rounds.")
