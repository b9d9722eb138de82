"""Write one line of the run log at the end of each round.

``Strategy.start`` calls its ``evaluate_fn`` once before the first round and once after each round.
This marks the end of a round for any strategy, without copying Flower's loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from flower_ist.files import NotWrittenError
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.metered import Meter, MeteredGrid, RoundTraffic
from flower_ist.runs.log import RunLog
from flower_ist.runs.socket_bytes import SocketBytes, node_fields, socket_fields
from flower_ist.strategies.closed_form import ClosedFormStrategy
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.strategies.resumed import HAS_SHOULD_STOP
from flower_ist.strategies.silent_rounds import SilentRounds
from flower_ist.strategies.submodel import SubmodelStrategy
from flower_ist.wire.reported import finite
from flower_ist.wire.size import wire_bytes

_T = TypeVar("_T")
_OPTIONAL = ("validation_accuracy", "ensemble_accuracy", "ensemble_validation_accuracy")
# So many clients that did not train are listed in a round's line.
_MOST_OTHERS = 1000
_OURS = (SubmodelStrategy, ClosedFormStrategy)
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]
_log = logging.getLogger("flwr")


class _Over(Exception):  # noqa: N818 - not an error
    """The run has ended before its last round."""


class RoundRecorder:
    """An ``evaluate_fn`` that evaluates, then logs the costs and results of the round.

        recorder = RoundRecorder(meter, RunLog(folder), strategy, evaluate, settings)
        strategy.start(grid=meter, evaluate_fn=recorder, ...)

    Args:
        meter: of the grid that the strategy uses, or that grid.
        log: the run log to append to.
        strategy: the strategy that runs; this library's own ones also give coverage and refusals.
        evaluate: the evaluation itself; its ``accuracy`` and ``loss`` go into the log, and so do
            ``validation_accuracy``, ``model_round``, ``ensemble_accuracy`` and
            ``ensemble_validation_accuracy`` if it returns them.
        settings: whatever identifies the run; ``strategy`` and ``seed`` become fields.
        registry: gives the clients' names; if None, the registry of a strategy of this library.
        save: called with the round and the model when the round is over and in the log, but not
            after a round in which all clients failed.
        over: called with the line of each round from round 1 on; returns why the run ends with it,
            which the line then says as ``stopped``, or an empty text.
        resumed_after: the last round that is already in the log, if the run is resumed. The next
            line records it as ``resumed_after``.
        socket_bytes: what the devices' lines have carried, where a gateway counts it.
        silent_rounds: whether a round of another strategy that nobody answers is waited out; this
            library's own judge that themselves.

    As a context manager around ``strategy.start`` it also logs a round that an exception
    interrupted, with accuracy and loss null and the exception as ``error``. And it ends the loop of
    a Flower before 1.43, which has no ``should_stop``, when the run is ``over``.

    Raises:
        TrainingFailedError: clients were asked to train and none replied, which Flower's own
            strategies would silently ignore, and they are not waited for.
    """

    def __init__(
        self,
        meter: Meter | MeteredGrid,
        log: RunLog,
        strategy: Strategy,
        evaluate: EvaluateFn,
        settings: Mapping[str, Any],
        registry: ClientRegistry | None = None,
        save: Callable[[int, ArrayRecord], None] = lambda _, __: None,
        over: Callable[[Mapping[str, Any]], str] = lambda _: "",
        resumed_after: int | None = None,
        socket_bytes: SocketBytes | None = None,
        silent_rounds: SilentRounds | None = None,
    ) -> None:
        self.meter = meter.meter if isinstance(meter, MeteredGrid) else meter
        self.log = log
        self.strategy = strategy
        self.evaluate = evaluate
        self.settings = dict(settings)
        self.registry = registry or (
            strategy.registry if isinstance(strategy, _OURS) else ClientRegistry()
        )
        self.save = save
        self.over = over
        self._stopped = ""
        self._flower_stops = False
        self._resumed_after = resumed_after
        self._has_trained = bool(resumed_after)
        self._socket_bytes = socket_bytes or SocketBytes("")
        self._silent_rounds = silent_rounds or SilentRounds(0.0)
        self._next_round = 0 if resumed_after is None else resumed_after + 1
        self._full_model_bytes: int | None = None
        self._round_began = self.meter.started

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate the model, write the round's line, and return the metrics."""
        if self._full_model_bytes is None:
            self._full_model_bytes = full_model_bytes(arrays)
        start = time.monotonic()
        metrics = self.evaluate(server_round, arrays)
        line = self._line(server_round, metrics or MetricRecord(), start, time.monotonic())
        self._stopped = self.over(line) if server_round else ""
        self.log.append({**line, "stopped": self._stopped} if self._stopped else line)
        self._has_trained |= line["coverage"] > 0
        self._resumed_after = None
        self._next_round = server_round + 1
        self.meter.current_round = self._next_round
        if self._nobody_came(server_round, self.meter.traffic(server_round)):
            reasons = "; ".join(f"{name}: {why}" for name, why in line["failures"].items())
            raise TrainingFailedError(
                f"Round {server_round}: none of {line['clients_selected']} clients brought "
                f"anything. {reasons}."
            )
        self.save(server_round, arrays)
        self._round_began = time.monotonic()
        if self._stopped:
            _log.info("The run ends after round %d: %s.", server_round, self._stopped)
            if not self._flower_stops:
                raise _Over
        return metrics

    def require_a_round(self) -> None:
        """Refuse to call the initial weights a model, at the end of a run.

        Raises:
            TrainingFailedError: there were rounds, and each was waited out.
        """
        if self._next_round > 1 and not self._has_trained:
            raise TrainingFailedError(
                f"None of {self._next_round - 1} rounds had enough replies, so the model is as it "
                "was before round 1: allow more rounds, or train while more clients are awake."
            )

    def _nobody_came(self, server_round: int, traffic: RoundTraffic) -> bool:
        """Return whether a round brought nothing and ends the run."""
        self._silent_rounds.begin()
        if isinstance(self.strategy, _OURS) or not traffic.selected:
            return False
        heard = traffic.replied | (traffic.failures.keys() - traffic.gone)
        silent = len(traffic.selected - heard)
        good = len(traffic.selected & traffic.replied)
        return not self._silent_rounds.waits(server_round, good, 1, silent) and not good

    def should_stop(self) -> dict[str, Any]:
        """Return the argument ``should_stop`` for ``strategy.start`` where this Flower has it.

        strategy.start(grid=meter, evaluate_fn=recorder, **recorder.should_stop())
        """
        self._flower_stops = HAS_SHOULD_STOP
        return {"should_stop": lambda _, __: bool(self._stopped)} if HAS_SHOULD_STOP else {}

    def __enter__(self) -> Self:
        """Begin to record interrupted rounds."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Log the round that an exception interrupted, if anything was sent in it."""
        if isinstance(error, _Over):
            return True
        if kind is not None and self.meter.traffic(self._next_round).total.messages_down:
            now = time.monotonic()
            line = self._line(self._next_round, MetricRecord(), now, now)
            # If the log itself cannot be written, that error is already being raised.
            with suppress(NotWrittenError):
                self.log.append({**line, "error": f"{kind.__name__}: {error}"})
        return False

    def _line(
        self, server_round: int, metrics: MetricRecord, start: float, end: float
    ) -> dict[str, Any]:
        traffic = self.meter.traffic(server_round)
        lines = self._socket_bytes.since_last()
        failures, bounded = dict(traffic.failures), dict(traffic.bounded)
        coverage = 1.0 if traffic.replied and server_round else 0.0
        if isinstance(self.strategy, _OURS) and traffic.selected:
            coverage = self.strategy.last_round.coverage
            failures |= self.strategy.last_round.refused
            bounded |= self.strategy.last_round.bounded
        for node_id in traffic.selected - traffic.replied - failures.keys():
            failures[node_id] = "no reply came in time"
        sent = start if traffic.sent_at is None else traffic.sent_at
        merge = start - sent - traffic.train_seconds - traffic.evaluate_seconds
        # Round 0 asks every registered client for its facts: a line must not grow with them.
        others = sorted(traffic.by_node.keys() - traffic.selected, key=self.registry.name)
        listed = [*(traffic.selected & traffic.by_node.keys()), *others[:_MOST_OTHERS]]
        unlisted = len(traffic.by_node) - len(listed)
        return {
            "round": server_round,
            "strategy": self.settings.get("strategy", type(self.strategy).__name__),
            "seed": self.settings.get("seed"),
            "accuracy": finite(metrics.get("accuracy")),
            "loss": finite(metrics.get("loss")),
            **{name: finite(metrics[name]) for name in _OPTIONAL if name in metrics},
            **({"model_round": metrics["model_round"]} if "model_round" in metrics else {}),
            **asdict(traffic.total),
            **socket_fields(lines),
            "full_model_bytes": self._full_model_bytes,
            **traffic.inputs,
            "local_steps": traffic.local_steps,
            "clients_selected": len(traffic.selected),
            "clients_replied": len(traffic.selected - failures.keys()),
            "clients_failed": len(traffic.selected & failures.keys()),
            "failures": self._named(failures),
            **({"bounded": self._named(bounded)} if bounded else {}),
            "coverage": coverage,
            "seconds": {
                "select": max(0.0, sent - self._round_began),
                "train": traffic.train_seconds,
                "merge": max(0.0, merge),
                "evaluate": end - start + traffic.evaluate_seconds,
            },
            "clients": self._named(
                {
                    n: {**asdict(traffic.by_node[n]), **node_fields((lines or {}).get(n))}
                    for n in listed
                }
            ),
            **({"clients_not_listed": unlisted} if unlisted else {}),
            "message_types": {name: asdict(t) for name, t in sorted(traffic.by_type.items())},
            "settings": self.settings,
            **({} if self._resumed_after is None else {"resumed_after": self._resumed_after}),
        }

    def _named(self, by_node: Mapping[int, _T]) -> dict[str, _T]:
        """Return the same by client name, sorted by name."""
        names = sorted((self.registry.name(node_id), node_id) for node_id in by_node)
        return {name: by_node[node_id] for name, node_id in names}


def full_model_bytes(arrays: ArrayRecord) -> int:
    """Return the wire bytes of one message with the whole model, measured by serializing one."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    return wire_bytes(Message(content, dst_node_id=2, message_type=MessageType.TRAIN))
