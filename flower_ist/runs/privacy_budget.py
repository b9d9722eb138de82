"""The epsilon of a client's noisy replies, by Google's accountant (the extra ``privacy``).

One reply is the Gaussian mechanism. Two data sets of a client give updates that are each clipped to
an L2 norm of C, so they are at most 2 C apart, and the noise on each weight has standard deviation
z C: a noise multiplier of z / 2. A client's replies compose. The server knows which client is
asked, and for which slice, so there is no privacy amplification by client sampling against it.

    flower-ist epsilon RUN --delta 1e-5
    flower-ist epsilon --noise 20 --replies 10

This is (epsilon, delta)-differential privacy of all of a client's data against anyone who sees its
replies, including the server: any two data sets with equally many examples are neighbors
(docs/privacy.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from flower_ist.errors import FlowerIstError
from flower_ist.runs.log import read_run

# Updates are within C of zero, and so within 2 C of each other.
_SENSITIVITY = 2.0


class BudgetError(FlowerIstError):
    """The epsilon cannot be computed."""


def epsilon(noise: float, replies: int, delta: float) -> float:
    """Return the epsilon of some replies of one client; infinite without noise.

    It is exact: T adaptively composed Gaussian mechanisms are as private as one with the noise
    divided by the square root of T (Dong et al., "Gaussian Differential Privacy", JRSS B 2022,
    https://arxiv.org/abs/1905.02383, corollary 3.3). For one mechanism the accountant computes the
    epsilon by Balle and Wang, ICML 2018, https://arxiv.org/abs/1805.06530.

    Args:
        noise: z, standard deviation on each weight in multiples of the clip.
        replies: how many of them left the device, at least 0.
        delta: above 0 and below 1; it should be well below 1 / number of clients.

    Raises:
        BudgetError: an argument is invalid, or the accountant is not installed.
    """
    if not 0 < delta < 1 or replies < 0 or not 0 <= noise < math.inf:
        raise BudgetError(
            f"Noise {noise}, {replies} replies and delta {delta} make no budget: noise must be at "
            "least 0, replies a whole number, and delta between 0 and 1."
        )
    if not replies:
        return 0.0
    if not noise:
        return math.inf
    try:
        from dp_accounting import get_epsilon_gaussian
    except ImportError:
        raise BudgetError(
            "The epsilon needs Google's accountant: pip install 'flower-ist[privacy]'."
        ) from None
    return float(get_epsilon_gaussian(noise / (_SENSITIVITY * math.sqrt(replies)), delta))


def replies_of(rounds: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return each client's number of replies after each round of a run log.

    A client that was sent anything in a training round counts as having replied: a late reply was
    still seen.
    """
    counts: dict[str, list[int]] = {}
    trained = [line for line in rounds if line["round"] and line.get("clients_selected")]
    for done, line in enumerate(trained):
        for name in line["clients"]:
            counts.setdefault(name, [0] * done)
        for name, history in counts.items():
            before = history[-1] if history else 0
            history.append(before + (name in line["clients"]))
    return counts


def plan_table(noise: float, replies: int, delta: float) -> Table:
    """Return the epsilon of some replies of one client."""
    table = Table("noise", "replies", f"epsilon at delta = {delta:g}")
    table.add_row(f"{noise:g}", str(replies), f"{epsilon(noise, replies, delta):.4g}")
    return table


def run_table(run: Path, noise: float | None, delta: float) -> Table:
    """Return the epsilon after each round of a run.

    Args:
        run: its folder or its run.jsonl.
        noise: in multiples of the clip; None for the run's own.
        delta: probability with which the bound may fail.

    Raises:
        BudgetError: the epsilon cannot be computed.
        RunLogError: there is no run log, or it is damaged.
    """
    rounds = read_run(run)
    if noise is None:
        noise = float(rounds[-1]["settings"].get("privacy-noise", 0.0))
    table = Table("round", "most replies of a client", f"epsilon at delta = {delta:g}")
    most = [max(counts) for counts in zip(*replies_of(rounds).values(), strict=True)]
    spent = {count: epsilon(noise, count, delta) for count in set(most)}
    for server_round, count in enumerate(most, start=1):
        table.add_row(str(server_round), str(count), f"{spent[count]:.4g}")
    return table
