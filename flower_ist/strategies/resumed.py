"""Resume a strategy after the rounds that are done, with Flower's own loop.

``Strategy.start`` always counts from round 1. Here it counts the remaining rounds, and the strategy
and the evaluation are given the numbers that they would have seen in one uninterrupted run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from inspect import signature
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from flower_ist.errors import ArgumentError

_T = TypeVar("_T")
_log = logging.getLogger("flwr")

HAS_SHOULD_STOP = "should_stop" in signature(Strategy.start).parameters
"""Whether this Flower can end a run before its last round: 1.43 and later."""


class ResumedStrategy(Strategy):
    """A strategy some of whose rounds are done.

        strategy = ResumedStrategy(FedAdam(...), rounds_done=7)
        strategy.start(grid, initial_arrays=model_after_round_7, num_rounds=10, ...)

    runs rounds 8, 9 and 10. Round numbers, also those of the result, are those of the whole run;
    ``num_rounds`` is its length. The model that it starts from is not evaluated again.

    Args:
        strategy: with the state that it had after those rounds.
        rounds_done: how many rounds are done.

    Raises:
        ArgumentError: the strategy has its own ``start``, which this one would not call.
    """

    def __init__(self, strategy: Strategy, rounds_done: int) -> None:
        if type(strategy).start is not Strategy.start:
            raise ArgumentError(
                f"{type(strategy).__name__} has a loop of its own, so it cannot be resumed."
            )
        self.strategy = strategy
        self.rounds_done = rounds_done
        self._num_rounds = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Delegate, with the number of the round in the whole run."""
        server_round += self.rounds_done
        _log.info("Of the whole run this is round %d of %d", server_round, self._num_rounds)
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Delegate, with the number of the round in the whole run."""
        return self.strategy.aggregate_train(server_round + self.rounds_done, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Delegate, with the number of the round in the whole run."""
        return self.strategy.configure_evaluate(
            server_round + self.rounds_done, arrays, config, grid
        )

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Delegate, with the number of the round in the whole run."""
        return self.strategy.aggregate_evaluate(server_round + self.rounds_done, replies)

    def summary(self) -> None:
        """Log the settings of the strategy itself."""
        name = type(self.strategy).__name__
        _log.info("\t├──> %s, resumed after round %d:", name, self.rounds_done)
        self.strategy.summary()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        should_stop: Callable[[int, Result], bool] | None = None,
    ) -> Result:
        """Run the remaining rounds of a run of ``num_rounds``.

        Raises:
            ArgumentError: ``should_stop`` is given, and this Flower does not have it.
        """
        if should_stop is not None and not HAS_SHOULD_STOP:
            raise ArgumentError("'should_stop' needs Flower 1.43 or later: leave it out.")

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            if evaluate_fn is None or server_round == 0:
                return None
            return evaluate_fn(server_round + self.rounds_done, arrays)

        def stop(server_round: int, result: Result) -> bool:
            assert should_stop is not None
            return should_stop(server_round + self.rounds_done, self._of_whole_run(result))

        self._num_rounds = num_rounds
        result = super().start(
            grid,
            initial_arrays,
            num_rounds - self.rounds_done,
            timeout,
            train_config,
            evaluate_config,
            evaluate,
            **({} if should_stop is None else {"should_stop": stop}),
        )
        # As in Flower's loop: rounds that brought nothing leave the model as it was.
        return replace(self._of_whole_run(result), arrays=result.arrays or initial_arrays)

    def _of_whole_run(self, result: Result) -> Result:
        return replace(
            result,
            train_metrics_clientapp=self._renumbered(result.train_metrics_clientapp),
            evaluate_metrics_clientapp=self._renumbered(result.evaluate_metrics_clientapp),
            evaluate_metrics_serverapp=self._renumbered(result.evaluate_metrics_serverapp),
        )

    def _renumbered(self, by_round: dict[int, _T]) -> dict[int, _T]:
        return {number + self.rounds_done: value for number, value in by_round.items()}
