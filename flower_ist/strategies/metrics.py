"""The metrics of a round's replies: judged one by one, bounded by all, made alike for Flower.

Flower's own strategies average metrics as they come. One reply with a key more than the others, or
no examples at all, ends the run; one with NaN makes the mean NaN; one with a billion examples is
the mean. :class:`AlikeReplies` in front of such a strategy lets none of that through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Error, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from flower_ist.grids.chain import Filter, category
from flower_ist.grids.clients import ClientRegistry
from flower_ist.strategies.claims import most_examples
from flower_ist.strategies.judge import judge_metrics
from flower_ist.strategies.replies import RoundReport, collect_replies, log_refusals
from flower_ist.wire._flwr import with_metadata
from flower_ist.wire.protocol import EXAMPLES_KEY, REFUSED_CODE
from flower_ist.wire.records import arrays_in
from flower_ist.wire.reported import weighted_mean

_ARRAYS, _METRICS = "arrays", "metrics"
_WITH_METRICS = (MessageType.TRAIN, MessageType.EVALUATE)

Judged = list[tuple[Message, dict[str, float]]]


class MetricsJudge:
    """Judge the metrics of replies by what their clients told before, and by each other.

    Args:
        registry: has what each client told when it was met.
        weighted_by_key: the metric that holds the number of examples.
        claim_bound: for how many examples a reply may count
            (:mod:`flower_ist.strategies.claims`); 0: not bounded.
    """

    def __init__(
        self,
        registry: ClientRegistry,
        weighted_by_key: str = EXAMPLES_KEY,
        claim_bound: float = 0.0,
    ) -> None:
        self._registry = registry
        self._key = weighted_by_key
        self._claim_bound = claim_bound

    def judge(self, replies: Sequence[Message], kind: str) -> tuple[Judged, RoundReport]:
        """Return the good replies with their metrics, bounded number of examples included.

        Who is left out, or counts for less, is logged and in the report.

        Args:
            replies: of which the first of each node counts.
            kind: of the messages that they answer: ``train`` or ``evaluate``.
        """
        nodes = dict.fromkeys(reply.metadata.src_node_id for reply in replies)
        sent = {n: self._registry.own_word(n, self._key) for n in nodes}

        def judge(reply: Message, most: float) -> tuple[dict[str, float], float]:
            return judge_metrics(reply, kind, self._key, most)

        good, report = collect_replies(replies, sent, judge)
        told = self._registry.numbers(self._key)
        most = most_examples(told or [n for _, (_, n) in good], self._claim_bound)
        judged: Judged = []
        for reply, (metrics, examples) in good:
            if examples > most:
                report.bound(reply.metadata.src_node_id, examples, most)
            judged.append((reply, {**metrics, self._key: min(examples, most)}))
        log_refusals(report, self._registry, f"aggregate_{kind}")
        return judged, report


class JudgedEvaluation(FedAvg):
    """FedAvg whose evaluate replies are judged. A subclass sets what :class:`MetricsJudge` needs.

    Attributes:
        registry: has what each client told when it was met.
        claim_bound: for how many examples a reply may count; 0: not bounded.
    """

    registry: ClientRegistry
    claim_bound: float

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Judge each reply on its own and average the metrics of the good ones."""
        judge = MetricsJudge(self.registry, self.weighted_by_key, self.claim_bound)
        good, _ = judge.judge(list(replies), MessageType.EVALUATE)
        contents = [RecordDict({_METRICS: MetricRecord({**metrics})}) for _, metrics in good]
        return self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key) if good else None


class AlikeReplies(Filter):
    """Give a strategy of Flower's only replies that it can average.

    A metric that most of the replies have is in all of them: who lacks it, or has no finite number,
    gets the others' mean, which changes no mean. Others are left out. Records have the same names.
    It belongs next to the strategy.

    Args:
        judge: of the metrics.
    """

    def __init__(self, judge: MetricsJudge) -> None:
        self._judge = judge

    def up(self, replies: Iterable[Message]) -> list[Message]:
        """Return replies with the same metrics, and errors for those that were refused."""
        replies = list(replies)
        kinds = {category(reply) for reply in replies}
        if len(kinds) != 1 or not kinds <= set(_WITH_METRICS):
            return replies
        (kind,) = kinds
        judged, report = self._judge.judge(replies, kind)
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
                error = Error(reply.error.code if reply.has_error() else REFUSED_CODE, reason)
                found.append(with_metadata(Message(error, reply_to=reply), reply.metadata))
        return found


def alike(
    reports: Sequence[Mapping[str, float]], weighted_by_key: str = EXAMPLES_KEY
) -> list[MetricRecord]:
    """Return metrics with the same keys in the same order: those that most reports have."""
    keys = [
        key
        for key in sorted({key for report in reports for key in report})
        if 2 * sum(key in report for report in reports) > len(reports)
    ]
    means = {
        key: weighted_mean([(r[weighted_by_key], r[key]) for r in reports if key in r])
        for key in keys
    }
    return [MetricRecord({key: report.get(key, means[key]) for key in keys}) for report in reports]
