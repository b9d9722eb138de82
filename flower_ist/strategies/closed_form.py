"""Closed-form heads as a Flower strategy: one round, one small answer per client, no model sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from flower_ist.errors import ArgumentError
from flower_ist.grids.clients import ClientRegistry, await_nodes
from flower_ist.statistics.class_means import class_means_head, fedcof_head
from flower_ist.statistics.lda import lda_heads
from flower_ist.statistics.ridge import RidgePath, ridge_head
from flower_ist.statistics.sums import (
    Head,
    Statistics,
    linear_head,
    statistics_layout,
)
from flower_ist.strategies.bound import check_bound
from flower_ist.strategies.claims import CLAIM_BOUND, bound_statistics
from flower_ist.strategies.judge import BadReply, Expected, judge_reply
from flower_ist.strategies.replies import RoundReport, judged_replies, log_refusals, require_enough
from flower_ist.strategies.state import State
from flower_ist.wire.packing import SQUEEZED
from flower_ist.wire.protocol import (
    CLASS_SUMS,
    CLASS_SUMS_AND_GRAM,
    COMPACT,
    PACKED_KEY,
    STATISTICS_DTYPE_KEY,
    STATISTICS_DTYPES,
    STATISTICS_KEY,
)
from flower_ist.wire.records import arrays_in
from flower_ist.wire.reported import mean_metrics

METHODS = ("ridge", "lda", "fedncm", "fedcof")

_log = logging.getLogger("flwr")


class ClosedFormStrategy(FedAvg):
    """Ridge regression (Fed3R), LDA, class means (FedNCM) or FedCOF on frozen features.

    In round 1 every connected client is asked for its statistics; the head that follows from them
    is the model. Later rounds send nothing and keep it. Start it with :func:`empty_head`:

        strategy = ClosedFormStrategy(method="ridge", penalties=[1, 10, 100], score=on_validation)
        strategy.start(grid, initial_arrays=empty_head(768, 10), num_rounds=1, ...)

    Args:
        method: ``ridge``, ``lda``, ``fedncm`` or ``fedcof``; the formulas are in
            :mod:`flower_ist.statistics.ridge`, :mod:`flower_ist.statistics.lda` and
            :mod:`flower_ist.statistics.class_means`.
        penalties: those of ridge or LDA to try.
        score: returns a head's score on the server's validation data, higher is better; of equally
            good penalties the first is taken. None: the penalty with which ridge has the least
            error by generalized cross-validation, which needs only the sums, or the largest
            penalty if there are too few examples for it.
        wire_dtype: ``float64``, with which the result is the central solution to 1e-6 however the
            data are split; ``float32`` for half of the bytes; or ``int16`` or
            ``compact``, for ridge about a quarter or a ninth of the bytes and an error of about a
            thousandth or a hundredth (:mod:`flower_ist.statistics.codec`), for the others the same
            as ``float32``, as they send no Gram matrix.
        max_token: statistics that need tokens of larger magnitude are refused.
        claim_bound: of three clients or more, one counts for at most so many times the examples of
            the median client, and its tokens must be about as large as the others'
            (:mod:`flower_ist.statistics.bounds`); at least 1, or 0: not bounded.
        node_timeout: seconds to wait for ``min_available_nodes``.
        registry: clients met already, if the ServerApp has asked them.
        min_train_nodes: fewest good answers; fewer stop the run with ``TrainingFailedError``.
        min_available_nodes: clients to wait for.

    The ClientApp must answer a train message whose config has the key ``statistics``; the one of
    this project does.

    Raises:
        ArgumentError: the settings cannot be used.
    """

    def __init__(
        self,
        *,
        method: str = "ridge",
        penalties: Sequence[float] = (1.0,),
        score: Callable[[Head], float] | None = None,
        wire_dtype: str = "float64",
        max_token: float = 1e4,
        claim_bound: float = CLAIM_BOUND,
        node_timeout: float = 60.0,
        registry: ClientRegistry | None = None,
        min_train_nodes: int = 2,
        min_available_nodes: int = 2,
    ) -> None:
        super().__init__(
            fraction_evaluate=0.0,
            min_train_nodes=min_train_nodes,
            min_available_nodes=min_available_nodes,
            train_metrics_aggr_fn=mean_metrics,
        )
        if method not in METHODS:
            raise ArgumentError(
                f"There is no method {method!r}: choose one of {', '.join(METHODS)}."
            )
        if wire_dtype not in STATISTICS_DTYPES:
            raise ArgumentError(
                f"There is no wire_dtype {wire_dtype!r}: choose one of "
                f"{', '.join(STATISTICS_DTYPES)}."
            )
        if not penalties or not all(0 < penalty < np.inf for penalty in penalties):
            raise ArgumentError(
                f"penalties is {list(penalties)}, but there must be one or more, and each must be "
                "above 0."
            )
        self.method = method
        self.penalties = penalties
        self.score = score
        self.wire_dtype = wire_dtype
        self.max_token = max_token
        self.claim_bound = check_bound("claim_bound", claim_bound)
        self.node_timeout = node_timeout
        self.registry = registry or ClientRegistry()
        self.last_round = RoundReport()
        self.penalty: float | None = None
        self._kind = CLASS_SUMS_AND_GRAM if method in ("ridge", "lda") else CLASS_SUMS
        self._sent: dict[int, tuple[int, int]] = {}
        self._done = False

    def summary(self) -> None:
        """Log the settings of this strategy."""
        _log.info("\t├──> Closed form: %s", self.method)
        if self.method in ("ridge", "lda"):
            _log.info("\t│\t├── Penalties: %s", list(self.penalties))
        _log.info("\t│\t└── On the wire: %s in %s", self._kind, self.wire_dtype)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client for its statistics, once; the head itself is not sent."""
        if self._done:
            self._sent = {}
            return []
        shape = self._head_shape(arrays)
        needed = max(self.min_available_nodes, self.min_train_nodes)
        clients = self.registry.meet(grid, await_nodes(grid, needed, self.node_timeout))
        self._sent = {client.node_id: shape for client in clients}
        content = self.question(ConfigRecord({**config, "server-round": server_round}))
        return [Message(content, client.node_id, MessageType.TRAIN) for client in clients]

    def question(self, config: ConfigRecord) -> RecordDict:
        """Return the content of a message that asks for statistics; ``config`` is sent with it."""
        asked = {STATISTICS_KEY: self._kind, STATISTICS_DTYPE_KEY: self.wire_dtype}
        return RecordDict({self.configrecord_key: ConfigRecord({**config, **asked})})

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge each answer on its own and compute the head from the good ones."""
        if not self._sent:
            return None, None
        good = self._good(server_round, replies)
        head = self.solve([statistics for _, statistics in good])
        self.last_round.coverage = 1.0
        self._done = True
        record = ArrayRecord({name: Array(tensor) for name, tensor in head.items()})
        contents = [reply.content for reply, _ in good]
        return record, self.train_metrics_aggr_fn(contents, self.weighted_by_key)

    def what_counts(self, server_round: int, replies: Iterable[Message]) -> dict[int, Statistics]:
        """Return what counts of the good answers, by node, for callers that need more than a head.

        Raises:
            TrainingFailedError: too few answers are good.
        """
        good = self._good(server_round, replies)
        return {reply.metadata.src_node_id: statistics for reply, statistics in good}

    def _good(
        self, server_round: int, replies: Iterable[Message]
    ) -> list[tuple[Message, Statistics]]:
        report = RoundReport()
        judged = list(judged_replies(replies, self._sent, self.judge, report))
        good = bound_statistics(judged, report, self.claim_bound)
        log_refusals(report, self.registry)
        self.last_round = report
        require_enough(
            server_round, len(good), len(self._sent), self.min_train_nodes, report, self.registry
        )
        return good

    def state(self) -> Mapping[str, State]:
        """Return whether the head has been computed."""
        return {"done": self._done}

    def load_state(self, state: Mapping[str, State]) -> None:
        """Restore what :meth:`state` returned."""
        self._done = bool(state["done"])

    def solve(self, clients: Sequence[Statistics]) -> Head:
        """Return the head that follows from the clients' statistics."""
        if self.method == "fedcof":
            return fedcof_head(clients)
        total = Statistics.total(clients)
        if self.method == "fedncm":
            return class_means_head(total)
        path = RidgePath.of(total)
        if self.method == "lda":
            heads = lda_heads(total, self.penalties)
        else:
            heads = [ridge_head(path.solve(penalty)) for penalty in self.penalties]
        if self.score is not None:
            best = int(np.argmax([self.score(head) for head in heads]))
        else:
            best = path.best_penalty(self.penalties, float(total.counts.sum()))
        self.penalty = self.penalties[best]
        _log.info("aggregate_train: %s penalty %g", self.method, self.penalty)
        return heads[best]

    def judge(
        self, reply: Message, shape: tuple[int, int], kind: str = MessageType.TRAIN
    ) -> Statistics:
        """Return the statistics that a client answered with.

        Args:
            reply: a client's.
            shape: (C, D).
            kind: of the message that asked for them.

        Raises:
            BadReply: they cannot be used; the message says why.
        """
        node_id, key = reply.metadata.src_node_id, self.weighted_by_key
        expected = Expected(
            layout=statistics_layout(*shape, self._kind, self.wire_dtype),
            packed_as=SQUEEZED if self.wire_dtype == COMPACT else "float32",
            arrayrecord_key=self.arrayrecord_key,
            weighted_by_key=key,
            max_examples=self.registry.own_word(node_id, key),
            kind=kind,
        )
        tensors, examples = judge_reply(reply, expected)
        try:
            statistics = Statistics.from_tensors(tensors)
        except ArgumentError as err:
            raise BadReply(str(err)) from err
        if reason := statistics.why_implausible(examples, self.max_token):
            raise BadReply(reason)
        record = arrays_in(reply.content)[self.arrayrecord_key]
        statistics.packed = record[PACKED_KEY].data if PACKED_KEY in record else b""
        return statistics

    def _head_shape(self, arrays: ArrayRecord) -> tuple[int, int]:
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        weight = shapes.get("fc1.weight", ())
        if len(weight) != 2 or shapes != {"fc1.weight": weight, "fc1.bias": weight[:1]}:
            raise ArgumentError(
                f"A closed-form strategy starts from one linear layer, empty_head(D, C), but the "
                f"model has {', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}."
            )
        return weight[0], weight[1]


def empty_head(dim: int, num_classes: int) -> ArrayRecord:
    """Return a head of zeros: one linear layer from D inputs to C classes."""
    head = linear_head(np.zeros((num_classes, dim)), np.zeros(num_classes))
    return ArrayRecord({name: Array(tensor) for name, tensor in head.items()})
