"""Bound for how many examples a reply counts by what the other clients told.

Where several clients hold a weight, their replies are averaged by their numbers of examples, which
nobody can check. With three clients or more one counts for at most :data:`MOST_VOICES` times the
median client, so that no single claim outweighs a majority.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median

from flwr.app import Message

from flower_ist.statistics.bounds import FEWEST_TO_COMPARE, UnlikeOthersError, bound_by_others
from flower_ist.statistics.sums import Statistics
from flower_ist.strategies.judge import uncapitalized
from flower_ist.strategies.replies import RoundReport
from flower_ist.submodels.cut import Returned

# How many times the median client's examples one may count for in statistics: as many as the
# largest of honest clients in the tests of docs/tables.md.
CLAIM_BOUND = 20.0
# The same for updates, which nobody else can recognize as wrong.
MOST_VOICES = 3.0


def most_examples(told: Sequence[float], claim_bound: float) -> float:
    """Return for how many examples a reply counts at most.

    Args:
        told: how many each client has, as it told.
        claim_bound: 0: not bounded.
    """
    if not claim_bound or len(told) < FEWEST_TO_COMPARE:
        return math.inf
    return min(claim_bound, MOST_VOICES) * median(told)


def bound_claims(
    good: Iterable[tuple[Message, Returned]], report: RoundReport, most: float
) -> Iterator[tuple[Message, Returned]]:
    """Yield the replies with weights of at most ``most``, and note whose were larger."""
    for reply, slice_ in good:
        if slice_.weight > most:
            report.bound(reply.metadata.src_node_id, slice_.weight, most)
            slice_ = replace(slice_, weight=most)
        yield reply, slice_


def bound_statistics(
    good: Sequence[tuple[Message, Statistics]], report: RoundReport, claim_bound: float
) -> list[tuple[Message, Statistics]]:
    """Return what counts of the good answers (:mod:`flower_ist.statistics.bounds`).

    Args:
        good: answers that were judged good, each with its statistics.
        report: refusals, and who counts for less, are noted in it.
        claim_bound: 0: not bounded.
    """
    kept = []
    bounded = bound_by_others([statistics for _, statistics in good], claim_bound)
    for (reply, told), counted in zip(good, bounded, strict=True):
        node_id = reply.metadata.src_node_id
        if isinstance(counted, UnlikeOthersError):
            report.refuse(node_id, uncapitalized(str(counted)), faulty=True)
            continue
        kept.append((reply, counted))
        if counted is not told:
            report.bound(node_id, float(told.counts.sum()), float(counted.counts.sum()))
    return kept
