"""The settings that are schedules over the rounds, and what follows them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flwr.serverapp.strategy import Strategy

from flower_ist.schedule import cosine, stretch
from flower_ist.scheduled_strategy import ScheduledStrategy
from server_app.settings import Settings


def client_settings(settings: Settings, server_round: int) -> dict[str, int | float]:
    """Return the client settings of this round that a schedule decides; none if there is none."""
    values: dict[str, int | float] = {}
    steps = settings.steps_by_stretch()
    if steps is not None:
        values["local-steps"] = stretch(server_round, settings.num_rounds, steps)
    if settings.final_learning_rate:
        values["learning-rate"] = cosine(
            server_round,
            settings.num_rounds,
            settings.learning_rate,
            settings.final_learning_rate,
        )
    return values


def scheduled(strategy: Strategy, settings: Settings) -> Strategy:
    """Return the strategy with the client settings of its rounds; itself without a schedule."""
    if not (settings.steps_schedule or settings.final_learning_rate):
        return strategy
    return ScheduledStrategy(strategy, partial(client_settings, settings))


def slices_of_rounds(settings: Settings) -> int | Callable[[int], int] | None:
    """Return the number of slices: one for all rounds, by round, or None for as many as clients."""
    slices = settings.slices_by_stretch()
    if slices is None:
        return settings.num_slices or None
    return lambda server_round: stretch(server_round, settings.num_rounds, slices)
