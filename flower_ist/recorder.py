"""Write one line of the run log at the end of each round.

``Strategy.start`` calls its ``evaluate_fn`` once before the first round and once after each: that
is where a round is over, for any strategy, without copying Flower's loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from flower_ist.meter import MeteredGrid
from flower_ist.metrics import finite
from flower_ist.runlog import RunLog
from flower_ist.strategy import ISTStrategy, TrainingFailedError
from flower_ist.wire import wire_bytes

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class RoundRecorder:
    """An ``evaluate_fn`` that evaluates, then writes down what the round took and brought.

        recorder = RoundRecorder(meter, RunLog(folder), strategy, evaluate, settings)
        strategy.start(grid=meter, evaluate_fn=recorder, ...)

    Args:
        meter: the grid that the strategy uses.
        log: where the lines go.
        strategy: the strategy that runs; coverage and refusals are asked of an ISTStrategy.
        evaluate: the evaluation itself; its ``accuracy`` and ``loss`` go into the log.
        settings: whatever identifies the run; ``strategy`` and ``seed`` become fields.
        on_round: called with each line after it is written, for progress.

    Raises:
        TrainingFailedError: clients were asked to train and none answered, which Flower's own
            strategies would pass over in silence.
    """

    def __init__(
        self,
        meter: MeteredGrid,
        log: RunLog,
        strategy: Strategy,
        evaluate: EvaluateFn,
        settings: Mapping[str, Any],
        on_round: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.meter = meter
        self.log = log
        self.strategy = strategy
        self.evaluate = evaluate
        self.settings = dict(settings)
        self.on_round = on_round
        self._full_model_bytes: int | None = None
        self._round_began = meter.started

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate the model, write the round's line, and return the metrics."""
        if self._full_model_bytes is None:
            self._full_model_bytes = full_model_bytes(arrays)
        start = time.monotonic()
        metrics = self.evaluate(server_round, arrays)
        line = self._line(server_round, metrics or MetricRecord(), start, time.monotonic())
        self.log.append(line)
        if self.on_round is not None:
            self.on_round(line)
        if line["clients_selected"] and not line["clients_replied"]:
            raise TrainingFailedError(
                f"Round {server_round}: none of {line['clients_selected']} clients answered. "
                + "; ".join(f"{name}: {reason}" for name, reason in line["failures"].items())
            )
        self.meter.begin_round(server_round + 1)
        self._round_began = time.monotonic()
        return metrics

    def _line(
        self, server_round: int, metrics: MetricRecord, start: float, end: float
    ) -> dict[str, Any]:
        traffic = self.meter.traffic(server_round)
        failures = dict(traffic.failures)
        coverage = 1.0 if traffic.replied else 0.0
        if isinstance(self.strategy, ISTStrategy) and traffic.selected:
            coverage = self.strategy.last_round.coverage
            failures = dict(self.strategy.last_round.refused)
        for client in traffic.selected - traffic.replied - failures.keys():
            failures[client] = "no reply came in time"
        sent = start if traffic.sent_at is None else traffic.sent_at
        trained = start if traffic.trained_at is None else traffic.trained_at
        return {
            "round": server_round,
            "strategy": self.settings.get("strategy", type(self.strategy).__name__),
            "seed": self.settings.get("seed"),
            "accuracy": finite(metrics.get("accuracy")),
            "loss": finite(metrics.get("loss")),
            **asdict(traffic.total),
            "full_model_bytes": self._full_model_bytes,
            **traffic.inputs,
            "local_steps": traffic.local_steps,
            "clients_selected": len(traffic.selected),
            "clients_replied": len(traffic.replied),
            "clients_failed": len(failures),
            "failures": failures,
            "coverage": coverage,
            "seconds": {
                "select": max(0.0, sent - self._round_began),
                "train": traffic.train_seconds,
                "merge": max(0.0, start - trained - traffic.evaluate_seconds),
                "evaluate": end - start + traffic.evaluate_seconds,
            },
            "clients": {name: asdict(t) for name, t in sorted(traffic.by_client.items())},
            "message_types": {name: asdict(t) for name, t in sorted(traffic.by_type.items())},
            "settings": self.settings,
        }


def full_model_bytes(arrays: ArrayRecord) -> int:
    """Return the wire bytes of one message that carries the whole model, by serialising one."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    return wire_bytes(Message(content, dst_node_id=2, message_type=MessageType.TRAIN))
