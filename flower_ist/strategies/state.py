"""What a strategy remembers from round to round: read from it, and given to a fresh one.

A strategy declares its state with two methods, :class:`Stateful`. Flower's own have none: which of
their attributes are state is listed here, from the source code of flwr 1.41. Attributes that they
set from the model at the start of each round (``current_arrays``) are not state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
)
from numpy.typing import NDArray

from flower_ist.errors import ArgumentError

# What a strategy's state may consist of: arrays and JSON values.
State: TypeAlias = (
    NDArray[Any] | bool | int | float | str | Sequence["State"] | Mapping[str, "State"] | None
)

# Class -> its attributes that are state: None, or a dict or list of arrays.
FLOWER_STATE: Mapping[type[Strategy], tuple[str, ...]] = {
    FedAvg: (),
    FedProx: (),
    FedMedian: (),
    FedTrimmedAvg: (),
    Krum: (),
    MultiKrum: (),
    FedAdagrad: ("m_t", "v_t"),
    FedAdam: ("m_t", "v_t"),
    FedYogi: ("m_t", "v_t"),
    FedAvgM: ("momentum_vector",),
}


@runtime_checkable
class Stateful(Protocol):
    """A strategy that can save and restore its state.

    ``load_state(state())`` on a strategy that was just built from the same settings must make it
    continue exactly as the first one would. What follows from settings, model and round is not
    state.
    """

    def state(self) -> Mapping[str, State]:
        """Return the state as arrays and JSON values; called between two rounds."""

    def load_state(self, state: Mapping[str, State]) -> None:
        """Restore what :meth:`state` returned."""


def strategy_state(strategy: Strategy) -> dict[str, State]:
    """Return a strategy's state.

    Raises:
        ArgumentError: nothing is known of this strategy's state.
    """
    if isinstance(strategy, Stateful):
        return dict(strategy.state())
    return {name: getattr(strategy, name) for name in _attributes(strategy)}


def load_strategy_state(strategy: Strategy, state: Mapping[str, State]) -> None:
    """Give a strategy, as it was built, the state of another one.

    Raises:
        ArgumentError: nothing is known of this strategy's state, or the state is another kind's.
    """
    if isinstance(strategy, Stateful):
        strategy.load_state(state)
        return
    names = _attributes(strategy)
    if set(names) != state.keys():
        raise ArgumentError(
            f"{type(strategy).__name__} has the state {list(names)}, but the checkpoint has "
            f"{sorted(state)}: resume with the version of flwr that began the run."
        )
    for name in names:
        setattr(strategy, name, state[name])


def _attributes(strategy: Strategy) -> tuple[str, ...]:
    # The exact class: what a subclass adds is unknown.
    try:
        return FLOWER_STATE[type(strategy)]
    except KeyError:
        raise ArgumentError(
            f"It is not known what {type(strategy).__name__} remembers from round to round: give "
            "it the methods state() and load_state(), see flower_ist/strategies/state.py."
        ) from None
