"""Bound what a client's statistics say by what the other clients' say.

Statistics of a client alone can be checked for contradictions only
(:meth:`flower_ist.statistics.sums.Statistics.why_implausible`). A client that multiplies all of
them by a million has contradicted nothing, and counts for more than all others together. With three
clients or more the others are the measure:

* a client's tokens are refused whose mean square is more than 9 times the median client's, over all
  coordinates, or more than 100 times in one of them: three and ten times its size;
* a client counts for as many examples as the median client at most, unless the others recognize
  what it calls by which name: most of its examples are of classes whose mean is nearest to the same
  class's mean of the others. Then it counts for up to ``bound`` times as many.

Of two clients nobody can say which one lies: nothing is bounded. Fewer than half of the clients
cannot move a median. Shares of classes are not compared: clients differ in them. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import FlowerIstError
from flower_ist.statistics.sums import Statistics

FEWEST_TO_COMPARE = 3
"""Of two clients neither is the outlier."""
_MOST_ENERGY = 9.0
_MOST_SQUARE = 100.0
# A coordinate that is nearly constant may differ more: it is measured by this share of the mean.
_LEAST_SHARE = 0.01
_TINY = 1e-12

Floats = NDArray[np.float64]


class UnlikeOthersError(FlowerIstError):
    """A client's tokens are not like the other clients'."""


@dataclass(frozen=True)
class Others:
    """What a client is compared with.

    Attributes:
        size: examples of the median client.
        squares: (D,) mean square of the median client's tokens in each coordinate.
        counts: (C,) examples of the others, each client with ``size`` examples at most.
        sums: (C, D) of the same.
    """

    size: float
    squares: Floats
    counts: Floats
    sums: Floats

    @classmethod
    def counted(cls, total: Statistics, sizes: Sequence[float]) -> Others | None:
        """Return what a client that joins is compared with; None if there is too little.

        Args:
            total: of the clients that were counted in.
            sizes: for how many examples each of them counts.
        """
        if len(sizes) + 1 < FEWEST_TO_COMPARE:
            return None
        counts = total.counts.astype(np.float64)
        return cls(float(np.median(sizes)), mean_squares(total), counts, total.sums)

    def bounded(self, client: Statistics, bound: float) -> Statistics:
        """Return what counts of a client's statistics: all, or the same of fewer examples.

        Args:
            client: of at least one example.
            bound: times ``size``; at least 1.

        Raises:
            UnlikeOthersError: nothing counts, as its tokens are much larger than the others'.
        """
        if reason := _why_too_large(client, self.squares):
            raise UnlikeOthersError(reason)
        size = float(client.counts.sum())
        if size <= self.size:
            return client
        most = self.size * (bound if self.recognize(client) else 1.0)
        return client if size <= most else client.scaled(most / size)

    def recognize(self, client: Statistics) -> bool:
        """Return whether most of a client's examples are of classes that the others know so."""
        own, known = np.flatnonzero(client.counts), np.flatnonzero(self.counts >= 1)
        if not len(known):
            return False
        means = client.sums[own] / client.counts[own, None]
        centers = self.sums[known] / self.counts[known, None]
        # |m - c|^2 without |m|^2, which is the same for all c.
        distances = (centers**2).sum(axis=1) - 2 * means @ centers.T
        same = known[distances.argmin(axis=1)] == own
        return bool(2 * client.counts[own][same].sum() > client.counts.sum())


def bound_by_others(
    clients: Sequence[Statistics], bound: float
) -> list[Statistics | UnlikeOthersError]:
    """Return what counts of each client's statistics, or why nothing does.

    Args:
        clients: each of at least one example; with fewer than three all count as they are.
        bound: times the median client's examples, for which a client may count; at least 1, or 0:
            all count as they are.
    """
    if not bound or len(clients) < FEWEST_TO_COMPARE:
        return list(clients)
    squares = np.median([mean_squares(client) for client in clients], axis=0)
    size = float(np.median([client.counts.sum() for client in clients]))
    # Each client has a voice, but none counts for more than the median one.
    voices = [
        0.0 if _why_too_large(client, squares) else min(1.0, size / client.counts.sum())
        for client in clients
    ]
    counts = np.sum([v * c.counts for v, c in zip(voices, clients, strict=True)], axis=0)
    sums = np.zeros_like(clients[0].sums)
    for voice, client in zip(voices, clients, strict=True):
        sums += voice * client.sums
    found: list[Statistics | UnlikeOthersError] = []
    for voice, client in zip(voices, clients, strict=True):
        others = Others(size, squares, counts - voice * client.counts, sums - voice * client.sums)
        try:
            found.append(others.bounded(client, bound))
        except UnlikeOthersError as refusal:
            found.append(refusal)
    return found


def mean_squares(client: Statistics) -> Floats:
    """Return the mean square of tokens in each coordinate (D,); without a Gram matrix, the means'.

    Args:
        client: of at least one example.
    """
    total = float(client.counts.sum())
    if client.gram is not None:
        return client.squares() / total
    held = client.counts > 0
    found: NDArray[Any] = (client.sums[held] ** 2 / client.counts[held, None]).sum(axis=0) / total
    return found


def _why_too_large(client: Statistics, usual: Floats) -> str:
    """Return why a client's tokens are much larger than the median client's, or nothing."""
    found, mean = mean_squares(client), float(usual.mean())
    if found.mean() > _MOST_ENERGY * mean:
        times = np.sqrt(found.mean() / mean) if mean > 0 else np.inf
        where = ""
    else:
        ratios = found / np.maximum(usual, max(_LEAST_SHARE * mean, _TINY))
        if ratios.max() <= _MOST_SQUARE:
            return ""
        times, where = np.sqrt(ratios.max()), f" in coordinate {ratios.argmax()}"
    return f"The statistics are of tokens {times:.3g} times as large as the median client's{where}"
