"""Refuse updates that are far larger than the round's others.

A reply may pass every check of :mod:`flower_ist.strategies.judge` and still be a thousand times as
large as an honest one. The size of an update is its root mean square over the slice's weights, on
the model's own scale, so that slices of different sizes compare.

A larger update is refused whole, not clipped to the bound: clipped, a poisoned slice would still
enter the model each round, as large as the bound allows and in the direction that its sender chose,
and a weight with one owner has nobody to outvote it. A refused slice rests for a round, as if its
client were silent. The bound does not catch a poisoned update of ordinary size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

import numpy as np
from flwr.app import Message

from flower_ist.statistics.bounds import FEWEST_TO_COMPARE
from flower_ist.strategies.replies import RoundReport
from flower_ist.submodels.cut import Returned, Tensors


def update_rms(tensors: Tensors, reply: Returned) -> float:
    """Return how far a client moved its weights: the root mean square of the changes.

    Args:
        tensors: the whole model, as it was when the slice was taken.
        reply: the trained slice.
    """
    squares, count = 0.0, 0
    for name, tensor in reply.tensors.items():
        if tensor.dtype.kind != "f":
            continue  # a counter's steps would drown all weights
        squares += float(np.square(reply.change(name, tensors[name])).sum())
        count += tensor.size
    return math.sqrt(squares / max(count, 1))


def within_norm_bound(
    good: Iterable[tuple[Message, Returned]],
    report: RoundReport,
    tensors: Tensors,
    norm_bound: float,
) -> Iterable[tuple[Message, Returned]]:
    """Return the replies whose update is at most ``norm_bound`` times the round's median.

    With fewer than three replies, or where half of them changed nothing, there is nothing to
    compare with, and all are returned. With a bound all replies are read first, and wait as they
    came over the network; without one they are handed on as they come.

    Args:
        good: replies that were judged good, each with its slice.
        report: refusals are noted in it.
        tensors: the whole model, as it was sent.
        norm_bound: how many times the median, at least 1; 0 for no bound.
    """
    if not norm_bound:
        return good
    entries, sizes = [], []
    for entry in good:
        sizes.append(update_rms(tensors, entry[1]))
        entries.append(entry)
    usual = median(sizes) if len(sizes) >= FEWEST_TO_COMPARE else 0.0
    if usual == 0.0:
        return entries
    kept = []
    for entry, size in zip(entries, sizes, strict=True):
        if size <= norm_bound * usual:
            kept.append(entry)
            continue
        report.refuse(
            entry[0].metadata.src_node_id,
            f"its update has an RMS of {size:.3g} a weight, more than norm_bound = "
            f"{norm_bound:g} times the round's median of {usual:.3g}",
            faulty=True,
        )
    return kept
