"""The metrics of a round's replies: judged one by one, bounded by all, made alike for Flower.

Flower's own strategies average metrics as they come. One reply with a key more than the others, or
no examples at all, ends the run; one with NaN makes the mean NaN; one with a billion examples is
the mean. :class:`AlikeReplies` in front of such a strategy lets none of that through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Message, MessageType, MetricRecord, RecordDict

from flower_ist.grids.chain import Filter, category, refused
from flower_ist.grids.clients import ClientRegistry
from flower_ist.strategies.claims import most_examples
from flower_ist.strategies.judge import content_of, examples_of
from flower_ist.strategies.replies import RoundReport, judged_replies, log_refusals
from flower_ist.wire.protocol import EXAMPLES_KEY, REFUSED_CODE
from flower_ist.wire.records import arrays_in
from flower_ist.wire.reported import finite_metrics, weighted_mean

_ARRAYS, _METRICS = "arrays", "metrics"
_WITH_METRICS = (MessageType.TRAIN, MessageType.EVALUATE)

Judged = list[tuple[Message, dict[str, float]]]


def judged_metrics(
    replies: Iterable[Message],
    kind: str,
    registry: ClientRegistry,
    claim_bound: float,
    weighted_by_key: str = EXAMPLES_KEY,
) -> tuple[Judged, RoundReport]:
    """Judge the metrics of replies by what their clients told before, and by each other.

    A metric is one finite number under a short, printable name; others are left out. Which clients
    are left out, or count for less, is logged and in the report.

    Args:
        replies: of which the first of each node counts.
        kind: of the messages that they answer: ``train`` or ``evaluate``.
        registry: has what each client told when it was met.
        claim_bound: for how many examples a reply may count
            (:mod:`flower_ist.strategies.claims`); 0: not bounded.
        weighted_by_key: the metric that holds the number of examples.

    Returns:
        The good replies with their metrics, bounded number of examples included, and the report.
    """
    replies = list(replies)
    nodes = dict.fromkeys(reply.metadata.src_node_id for reply in replies)
    sent = {node_id: registry.own_word(node_id, weighted_by_key) for node_id in nodes}

    def judge(reply: Message, most: float) -> tuple[dict[str, float], float]:
        content = content_of(reply, kind)
        examples = examples_of(content, weighted_by_key, most)
        return finite_metrics(content, weighted_by_key), examples

    report = RoundReport()
    good = list(judged_replies(replies, sent, judge, report))
    told = registry.numbers(weighted_by_key) or [examples for _, (_, examples) in good]
    most = most_examples(told, claim_bound)
    judged: Judged = []
    for reply, (metrics, examples) in good:
        if examples > most:
            report.bound(reply.metadata.src_node_id, examples, most)
        judged.append((reply, {**metrics, weighted_by_key: min(examples, most)}))
    log_refusals(report, registry, f"aggregate_{kind}")
    return judged, report


class AlikeReplies(Filter):
    """Give a strategy of Flower's only replies that it can average.

    A metric that most of the replies have is in all of them: who lacks it, or has no finite number,
    gets the others' mean, which changes no mean. Others are left out. Records have the same names.
    It belongs next to the strategy.

    Args:
        registry: has what each client told when it was met.
        claim_bound: for how many examples a reply may count; 0: not bounded.
    """

    def __init__(self, registry: ClientRegistry, claim_bound: float) -> None:
        self._registry = registry
        self._claim_bound = claim_bound

    def up(self, replies: Iterable[Message]) -> list[Message]:
        """Return replies with the same metrics, and errors for those that were refused."""
        replies = list(replies)
        kinds = {category(reply) for reply in replies}
        if len(kinds) != 1 or not kinds <= set(_WITH_METRICS):
            return replies
        (kind,) = kinds
        judged, report = judged_metrics(replies, kind, self._registry, self._claim_bound)
        contents = alike([metrics for _, metrics in judged])
        passed = {id(reply): metrics for (reply, _), metrics in zip(judged, contents, strict=True)}
        found = []
        for reply in replies:
            if id(reply) in passed:
                records = arrays_in(reply.content) if kind == MessageType.TRAIN else {}
                if len(records) == 1:
                    records = {_ARRAYS: next(iter(records.values()))}
                reply.content = RecordDict({**records, _METRICS: passed[id(reply)]})
                found.append(reply)
            else:
                reason = report.refused.get(reply.metadata.src_node_id, "it answered twice")
                code = reply.error.code if reply.has_error() else REFUSED_CODE
                found.append(refused(reply, reason, code))
        return found


def alike(reports: Sequence[Mapping[str, float]]) -> list[MetricRecord]:
    """Return metrics with the same keys in the same order: those that most reports have."""
    keys = [
        key
        for key in sorted({key for report in reports for key in report})
        if 2 * sum(key in report for report in reports) > len(reports)
    ]
    means = {
        key: weighted_mean([(r[EXAMPLES_KEY], r[key]) for r in reports if key in r]) for key in keys
    }
    return [MetricRecord({key: report.get(key, means[key]) for key in keys}) for report in reports]
