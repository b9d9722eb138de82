"""A round's replies: judge each on its own, note who was refused, stop if too few are good."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import ArrayRecord, Message, RecordDict

from flower_ist.errors import FlowerIstError
from flower_ist.grids.clients import ClientRegistry
from flower_ist.strategies.judge import BadReply, ClientFailed
from flower_ist.wire.protocol import PACKED_STYPE
from flower_ist.wire.reported import is_superlink_error

_log = logging.getLogger("flwr")
_Sent = TypeVar("_Sent")
_Good = TypeVar("_Good")


class TrainingFailedError(FlowerIstError):
    """Training cannot go on: too few good replies, or a model that has overflowed."""


@dataclass
class RoundReport:
    """What happened in one round of training.

    Attributes:
        coverage: share of the model's weights that some client trained, 0 to 1.
        refused: node id -> why nothing of its reply was used.
        faulty: the refused nodes whose reply itself was at fault, not an error or silence.
        silent: the refused nodes of which nothing was heard, at most from the SuperLink.
        bounded: node id -> the number of examples that it told, and for how many it counts.
        quarantined: names of the clients that were not asked because of earlier faults.
    """

    coverage: float = 0.0
    refused: dict[int, str] = field(default_factory=dict)
    faulty: set[int] = field(default_factory=set)
    silent: set[int] = field(default_factory=set)
    bounded: dict[int, tuple[float, float]] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)

    def refuse(self, node_id: int, reason: str, *, faulty: bool = False) -> None:
        """Note that nothing of a node's reply is used."""
        self.refused[node_id] = reason
        if faulty:
            self.faulty.add(node_id)

    def bound(self, node_id: int, told: float, counted: float) -> None:
        """Note that a node's reply counts for fewer examples than it told."""
        self.bounded[node_id] = (told, counted)


def judged_replies(
    replies: Iterable[Message],
    sent: Mapping[int, _Sent],
    judge: Callable[[Message, _Sent], _Good],
    report: RoundReport,
) -> Iterator[tuple[Message, _Good]]:
    """Judge each reply on its own, when it comes.

    Args:
        replies: whatever comes back.
        sent: node id -> what the node was sent.
        judge: takes a reply and what its node was sent, and returns what is used of the reply, or
            raises :class:`BadReply`.
        report: names the nodes whose replies are refused or missing, when all are read.

    Yields:
        The good replies, each with what :func:`judge` returned.
    """
    unanswered = dict(sent)
    for reply in replies:
        node_id = reply.metadata.src_node_id
        if node_id not in unanswered:
            report.refuse(node_id, "no answer is due from it: it answered twice or was not asked")
            continue
        try:
            good = judge(reply, unanswered.pop(node_id))
        except BadReply as refusal:
            report.refuse(node_id, str(refusal), faulty=not isinstance(refusal, ClientFailed))
            if is_superlink_error(reply):
                report.silent.add(node_id)
        else:
            yield reply, good
    for node_id in unanswered:
        report.refuse(node_id, "no reply came in time")
        report.silent.add(node_id)


def without_arrays(content: RecordDict) -> RecordDict:
    """Return the metrics and configs of a reply, whose arrays would fill the server's memory."""
    return RecordDict(
        {key: record for key, record in content.items() if not isinstance(record, ArrayRecord)}
    )


def log_refusals(
    report: RoundReport, registry: ClientRegistry, step: str = "aggregate_train"
) -> None:
    """Log who is left out of a round and why, and who counts for less than it told."""
    for node_id, reason in report.refused.items():
        name = registry.name(node_id)
        _log.warning("%s: %s is left out of this round: %s", step, name, reason)
    for node_id, (told, counted) in report.bounded.items():
        _log.warning(
            "%s: %s counts for %s examples instead of its %s: see claim_bound",
            step,
            registry.name(node_id),
            f"{counted:,.0f}",
            f"{told:,.0f}",
        )


def require_enough(
    server_round: int,
    good: int,
    asked: int,
    needed: int,
    report: RoundReport,
    registry: ClientRegistry,
) -> None:
    """Stop the run if fewer than ``needed`` replies, or none at all, are good.

    Raises:
        TrainingFailedError: with the clients' names and the reasons.
    """
    if good >= max(needed, 1):
        return
    reasons = "; ".join(f"{registry.name(n)}: {why}" for n, why in report.refused.items())
    hint = ""
    if any(PACKED_STYPE in reason for reason in report.refused.values()):
        hint = " Give the ClientApp mods=[packed_mod], or leave the filter Packed out of the chain."
    raise TrainingFailedError(
        f"Round {server_round}: {good} of {asked} replies were good, min_train_nodes is {needed}. "
        f"{reasons}.{hint}"
    )
