"""Sub-model training as a Flower strategy: Independent Subnetwork Training and its relatives.

Yuan et al., "Distributed Learning of Fully Connected Neural Networks using Independent Subnet
Training", VLDB 2022, https://arxiv.org/abs/1910.02120; on masked ViT tokens: Kariotakis et al.,
CPAL 2024, https://openreview.net/forum?id=D9ggc3l0wi.

Each round a client gets the small dense net of some hidden neurons, trains it as any other model,
and the strategy puts it back. Which neurons: :mod:`flower_ist.submodels.schemes`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

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
from numpy.typing import NDArray

from flower_ist.grids.chain import OneByOne
from flower_ist.grids.clients import ClientRegistry
from flower_ist.strategies.bound import check_bound
from flower_ist.strategies.capacities import Capacities, ClientCapacities
from flower_ist.strategies.claims import CLAIM_BOUND, bound_claims, most_examples
from flower_ist.strategies.judge import Expected, judge_reply
from flower_ist.strategies.metrics import judged_metrics
from flower_ist.strategies.norm_bound import within_norm_bound
from flower_ist.strategies.quarantine import Quarantine
from flower_ist.strategies.replies import (
    RoundReport,
    judged_replies,
    log_refusals,
    without_arrays,
)
from flower_ist.strategies.selection import ClientSelection
from flower_ist.strategies.slice_message import slice_message
from flower_ist.strategies.state import State
from flower_ist.strategies.summary import log_summary
from flower_ist.submodels.assignment import Assignment
from flower_ist.submodels.axes import Axes
from flower_ist.submodels.check import check_model, check_shapes
from flower_ist.submodels.cut import Cut, Returned
from flower_ist.submodels.merging import Merger, room_for
from flower_ist.submodels.robust import trim_for
from flower_ist.submodels.schemes import SubmodelScheme, submodel_scheme
from flower_ist.wire.record_tensors import decode, record_of
from flower_ist.wire.reported import mean_metrics

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger("flwr")


class SubmodelStrategy(FedAvg):
    """Train sub-models: which neurons each client gets is up to a scheme.

    It takes FedAvg's arguments and others. Of FedAvg's ``fraction_evaluate`` is 0 by default: each
    client that evaluates would get the whole model, which costs more than all slices together.
    Evaluate on the server. Metrics are averaged by
    :func:`flower_ist.wire.reported.mean_metrics`, and ``train_metrics_aggr_fn`` gets the replies
    without their arrays, which are merged by then.

    Args:
        axes: which axis of which tensor belongs to which hidden width.
        model: the module that the axes were declared for: they are proven before anything is sent
            (:mod:`flower_ist.modules.prove`) with ``example_input``, its argument or a tuple.
        scheme: a name in :data:`flower_ist.submodels.schemes.SCHEMES`, or a scheme of your own.
        num_slices: K, how many slices the neurons are divided into (disjoint schemes only). If
            None: as many as clients are sampled (at most the smallest width). With more clients
            than slices several clients train the same slice and are averaged; with fewer, some
            slices rest for a round. Slices that are the same in all rounds (``ist-fixed``) then
            take turns.
        capacities: the share of each width's neurons that a client can hold, above 0 and at most
            1: in the order in which the nodes were registered, again from the first if there are
            more; or by client name; or a function of what is known of a client
            (:mod:`flower_ist.strategies.capacities`). Required by schemes whose slices overlap.
            With a disjoint scheme each client gets its share of the neurons, and the rest rests;
            capacities that sum to more than 1 are relative sizes.
        seed: of partitions, of who trains which slice, and of client sampling.
        node_timeout: seconds to wait for ``min_available_nodes``, and after a round for which too
            many clients were silent (:mod:`flower_ist.strategies.silent_rounds`).
        registry: clients met already, if the ServerApp has asked them.
        max_weight: a reply with a weight of larger magnitude, on the model's own scale, is refused,
            and so is a model with one.
        claim_bound: a reply counts for at most so many times the median client's examples, or three
            times if that is less (:mod:`flower_ist.strategies.claims`); 0: not bounded.
        norm_bound: a reply whose update is larger than this many times the round's median is
            refused; at least 1, or 0 for no bound.
        quarantine_after: faulty replies in a row after which a client is no longer asked; 0: never.
        quarantine_rounds: how many rounds that lasts; 0: for the rest of the run.
        merge_rule: what becomes of a weight that several clients hold: their ``mean``, ``median``
            or ``trimmed-mean:0.25``, with the share that is cut off at each end.
        name_neurons: tell a client which neurons its slice has, so that it can make their initial
            weights (:mod:`flower_ist.classifier.initial`).
        of_fedavg: FedAvg's arguments.

    A reply that is an error, or whose arrays or values are not as expected, or with more examples
    than its client had when it was met, is refused with a logged reason and its slice keeps its
    weights. The run stops with :class:`TrainingFailedError` when fewer than ``min_train_nodes``
    replies are good, unless the silent ones are waited for.

    Raises:
        PartitionError: the scheme does not exist, or cannot use these sizes.
        ProofError: the axes are wrong for the module.
        ArgumentError: the merge rule or a bound is invalid.
    """

    def __init__(
        self,
        axes: Axes,
        *,
        model: nn.Module | None = None,
        example_input: Any = None,
        scheme: str | SubmodelScheme = "ist",
        num_slices: int | None = None,
        capacities: Capacities | None = None,
        seed: int = 0,
        node_timeout: float = 60.0,
        registry: ClientRegistry | None = None,
        max_weight: float = 1e4,
        claim_bound: float = CLAIM_BOUND,
        norm_bound: float = 0.0,
        quarantine_after: int = 3,
        quarantine_rounds: int = 0,
        merge_rule: str = "mean",
        name_neurons: bool = False,
        **of_fedavg: Any,
    ) -> None:
        of_fedavg.setdefault("fraction_evaluate", 0.0)
        for name in ("train_metrics_aggr_fn", "evaluate_metrics_aggr_fn"):
            of_fedavg.setdefault(name, mean_metrics)
        super().__init__(**of_fedavg)
        self.axes = axes
        self.scheme = submodel_scheme(scheme) if isinstance(scheme, str) else scheme
        if model is not None:
            from flower_ist.modules.prove import prove  # only a proof needs torch

            prove(model, axes, example_input, scaled=self.scheme.scaled)
        self.capacities = ClientCapacities(capacities)
        self.assignment = Assignment(axes, self.scheme, seed, num_slices, self.capacities.listed)
        self.node_timeout = node_timeout
        self.registry = registry or ClientRegistry()
        self.max_weight = max_weight
        self.claim_bound = check_bound("claim_bound", claim_bound)
        self.norm_bound = check_bound("norm_bound", norm_bound)
        quarantine = Quarantine(quarantine_after, quarantine_rounds)
        self.selection = ClientSelection(self.registry, quarantine, seed, node_timeout)
        self.merge_rule = merge_rule
        self.name_neurons = name_neurons
        self.last_round = RoundReport()
        # Handed out in a record that anybody may keep: the arrays are never written again.
        self._weights: dict[str, NDArray[Any]] = {}
        self._retired: dict[str, NDArray[Any]] = {}
        self._weights_record: ArrayRecord | None = None
        self._frozen: dict[str, Array] = {}
        self._sent: dict[int, Cut] = {}
        self._trim = trim_for(merge_rule)

    def summary(self) -> None:
        """Log the settings of this strategy, then those it shares with FedAvg."""
        log_summary(self)
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Cut the model into slices and address one to each sampled client."""
        if self.fraction_train == 0.0:
            return []
        self._load(arrays)
        clients = self.selection.select(
            server_round,
            grid,
            fraction=self.fraction_train,
            min_train_nodes=self.min_train_nodes,
            min_available_nodes=self.min_available_nodes,
        )
        clients = self.capacities.able(clients, self.min_train_nodes)
        seats = [self.selection.seats[client.name] for client in clients]
        cuts = self.assignment.cuts(server_round, seats, self.capacities.of(clients))
        _log.info("configure_train: %d clients on %d slices", len(cuts), len(set(cuts)))
        self._sent = {client.node_id: cut for client, cut in zip(clients, cuts, strict=True)}
        # Each slice is cut when its message is sent, and the replies are merged as they come.
        return OneByOne(
            slice_message(
                self._weights,
                cut,
                node_id,
                ConfigRecord({**config, "server-round": server_round}),
                max_weight=self.max_weight,
                arrayrecord_key=self.arrayrecord_key,
                configrecord_key=self.configrecord_key,
                name_neurons=self.name_neurons,
            )
            for node_id, cut in self._sent.items()
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge each reply on its own and merge the good ones into the model."""
        if not self._sent:
            return None, None
        report = RoundReport()
        good = judged_replies(replies, self._sent, self._judge, report)
        if self.scheme.weighted:
            examples = self.registry.numbers(self.weighted_by_key)
            good = bound_claims(good, report, most_examples(examples, self.claim_bound))
        weights = room_for(self._weights, self._retired)
        merger = Merger(self._weights, weights, list(self._sent.values()), self._trim)
        told: dict[int, RecordDict] = {}
        for reply, slice_ in within_norm_bound(good, report, self._weights, self.norm_bound):
            merger.add(slice_)
            told[reply.metadata.src_node_id] = without_arrays(reply.content)
        self.selection.close_round(server_round, told, report)
        log_refusals(report, self.registry)
        self.last_round = report
        counts = len(told), len(self._sent), self.min_train_nodes
        if not self.selection.is_enough(server_round, *counts, report):
            return None, None
        report.coverage = merger.finish()
        self._retired, self._weights = self._weights, weights
        _log.info(
            "aggregate_train: merged %d of %d replies, %.1f %% of the weights were trained",
            len(told),
            len(self._sent),
            100 * report.coverage,
        )
        merged = self._weights_record = record_of(weights)
        merged.update(self._frozen)
        self.capacities.note({self.registry.name(node_id): told[node_id] for node_id in told})
        return merged, self.train_metrics_aggr_fn(list(told.values()), self.weighted_by_key)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Judge each reply on its own and average the metrics of the good ones."""
        good, _ = judged_metrics(
            replies, MessageType.EVALUATE, self.registry, self.claim_bound, self.weighted_by_key
        )
        contents = [RecordDict({"metrics": MetricRecord({**metrics})}) for _, metrics in good]
        return self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key) if good else None

    def state(self) -> Mapping[str, State]:
        """Return what must be kept from round to round; the rest follows from the settings."""
        return {**self.selection.state(), **self.capacities.state()}

    def load_state(self, state: Mapping[str, State]) -> None:
        """Restore what :meth:`state` returned."""
        self.selection.load_state(state)
        self.capacities.load_state(state)

    def _load(self, arrays: ArrayRecord) -> None:
        """Keep the whole model as arrays; it is decoded again only if others made it."""
        if arrays is self._weights_record:
            return
        check_shapes({name: tuple(array.shape) for name, array in arrays.items()}, self.axes)
        self._frozen = {name: arrays[name] for name in self.axes.frozen}
        self._weights = {
            name: decode(arrays[name], np.dtype(arrays[name].dtype), tuple(shape))
            for name, shape in self.axes.shapes.items()
        }
        check_model(self._weights, self.axes, self.max_weight, scaled=self.scheme.scaled)
        self._weights_record = arrays

    def _judge(self, reply: Message, cut: Cut) -> Returned:
        node_id = reply.metadata.src_node_id
        expected = Expected(
            layout={n: (self._weights[n].dtype, shape) for n, shape in cut.shapes().items()},
            arrayrecord_key=self.arrayrecord_key,
            weighted_by_key=self.weighted_by_key,
            max_weight=self.max_weight,
            factors=cut.factors(),
            sent={n: cut.part(n, w) for n, w in self._weights.items() if w.dtype.kind in "iu"},
            max_examples=self.registry.own_word(node_id, self.weighted_by_key),
        )
        tensors, examples = judge_reply(reply, expected)
        weight = examples if self.scheme.weighted else 1.0
        return Returned(cut, tensors, weight, tensors.changes())


class ISTStrategy(SubmodelStrategy):
    """Independent Subnetwork Training: :class:`SubmodelStrategy` with the default scheme.

    Each round the hidden neurons are divided at random into disjoint slices.
    """
