"""Registered nodes that lie about who they are and what they have."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message

from flower_ist.grids.chain import is_train
from flower_ist.statistics.sums import Statistics
from flower_ist.tokens.demo import test_shard
from hostile.federation import Federation
from hostile.node import HostileNode, honest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.fakes.hostile import (
    Lie,
    calls_itself,
    flipped,
    larger,
    nonsense,
    sums,
    tells,
    then,
    times,
)

# The first of the honest nodes.
VICTIM = "demo-0"
_NUMBER = 3
_MANY = tells(num_examples=10**8)


def told_name(federation: Federation) -> HostileNode:
    """Take another node's name and earn a quarantine for it."""
    return _liar(federation, then(calls_itself(VICTIM), nonsense))


def told_facts(federation: Federation) -> HostileNode:
    """Take another node's name and have it left out for its data."""
    lie = then(calls_itself(VICTIM), tells(token_dim=5))
    return _liar(federation, lie, attacks=lambda _: True)


def told_first(federation: Federation) -> HostileNode:
    """Take a name that sorts before all others."""
    return _liar(federation, calls_itself("aaa"))


def count_lie(federation: Federation) -> HostileNode:
    """Claim ten thousand times the examples, under the wrong classes."""
    return _liar(federation, then(_MANY, _sums(lambda told: times(10**4)(flipped(told)))))


def spread_lie(federation: Federation) -> HostileNode:
    """Claim tokens that are a hundred times as large."""
    return _liar(federation, _sums(larger(100)))


def _sums(change: Callable[[Statistics], Statistics]) -> Lie:
    meta = test_shard().meta
    return sums(change, classes=meta.num_classes, dim=meta.dim)


def _liar(
    federation: Federation, lie: Lie, attacks: Callable[[Message], bool] = is_train
) -> HostileNode:
    def answer(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        return reply if reply.has_error() else lie(message, reply)

    return HostileNode(federation, _NUMBER, answer, attacks=attacks)
