"""Client settings that change from round to round, for any strategy, in Flower's own loop.

``Strategy.start`` hands the same train config to every round. Here the strategy gets a copy with
the round's own values; what it sends with it is its own business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

_log = logging.getLogger("flwr")


class ScheduledStrategy(Strategy):
    """A strategy whose train config follows the round.

        strategy = ScheduledStrategy(FedAdam(...), lambda r: {"learning-rate": 0.1 / r})
        strategy.start(grid, initial_arrays, train_config=ConfigRecord({"batch-size": 64}))

    To resume it, put :class:`flower_ist.resume.ResumedStrategy` around it: that one counts the
    whole run's rounds.

    Args:
        strategy: it is not changed otherwise.
        of_round: returns a round's own values, which come before those of the train config.

    Raises:
        ValueError: the strategy has a ``start`` of its own, which this one would not call.
    """

    def __init__(
        self, strategy: Strategy, of_round: Callable[[int], Mapping[str, int | float]]
    ) -> None:
        if type(strategy).start is not Strategy.start:
            raise ValueError(
                f"{type(strategy).__name__} has a loop of its own, so it cannot follow a schedule."
            )
        self.strategy = strategy
        self.of_round = of_round

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Hand on with the round's own values in a copy of the config."""
        values = dict(self.of_round(server_round))
        _log.info("configure_train: the schedule gives %s", values)
        return self.strategy.configure_train(
            server_round, arrays, ConfigRecord({**config, **values}), grid
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand on."""
        return self.strategy.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Hand on."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Hand on."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log the settings of the strategy itself."""
        _log.info("\t├──> %s, with settings by round:", type(self.strategy).__name__)
        self.strategy.summary()
