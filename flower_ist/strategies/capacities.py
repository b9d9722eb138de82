"""How much of the model each client can hold: in order, by name, or by what is known of it.

A function of a client gets its ``client-name``, the facts that it told when it was met (whatever
numbers its ClientApp adds, such as its memory), the metrics of its last good reply, and the
``capacity`` that it had in that round:

    ISTStrategy(axes, capacities={"raspberry": 0.1, "desktop": 0.6})
    ISTStrategy(axes, capacities=lambda client: min(1.0, client["memory-gib"] / 16))
    ISTStrategy(axes, capacities=by_speed(0.02))
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from flwr.app import RecordDict

from flower_ist.grids.clients import Client
from flower_ist.strategies.state import State
from flower_ist.submodels.partition import PartitionError
from flower_ist.tracked import TrackedDict
from flower_ist.wire.protocol import CLIENT_NAME_KEY
from flower_ist.wire.records import metrics_in
from flower_ist.wire.reported import MAX_METRICS, client_text, finite

_log = logging.getLogger("flwr")

CAPACITY_KEY = "capacity"
SECONDS_KEY = "seconds-per-step"

Capacities: TypeAlias = Sequence[float] | Mapping[str, float] | Callable[[Mapping[str, Any]], float]


class ClientCapacities:
    """The capacities of a round's clients.

    Args:
        given: as the user has said it; None where slices have sizes of their own.

    Attributes:
        listed: capacities that a scheme can be checked with.
    """

    def __init__(self, given: Capacities | None) -> None:
        self._given = given
        # name -> metrics of the last good reply, and the capacity of that round
        self._told: TrackedDict[dict[str, float]] = TrackedDict()
        self._now: dict[str, float] = {}
        self.listed: Sequence[float] | None = None
        if callable(given):
            self.listed = [1.0]
        elif given is not None:
            self.listed = list(given.values() if isinstance(given, Mapping) else given)

    def of(self, clients: Sequence[Client]) -> list[float] | None:
        """Return the clients' capacities; None where they follow from the order of clients.

        Raises:
            PartitionError: a client has none, or one that is not above 0 and at most 1.
        """
        if not callable(self._given) and not isinstance(self._given, Mapping):
            return None
        self._now = {client.name: self._one(client) for client in clients}
        return list(self._now.values())

    def able(self, clients: Sequence[Client], needed: int) -> list[Client]:
        """Return the clients that have a capacity; who has none is logged and left out.

        A function gets what clients tell of themselves: one that tells nonsense stops nobody else.

        Raises:
            PartitionError: fewer than ``needed`` have one.
            Exception: whatever the function raised, if fewer than ``needed`` have one.
        """
        if not callable(self._given) and not isinstance(self._given, Mapping):
            return list(clients)
        found, failure = [], None
        for client in clients:
            try:
                self._one(client)
            except (PartitionError, ArithmeticError, LookupError, TypeError, ValueError) as err:
                failure = err
                reason = client_text(str(err) or type(err).__name__)
                _log.warning("%s is left out of this round: %s", client.name, reason)
            else:
                found.append(client)
        if failure is not None and len(found) < needed:
            raise failure
        return found

    def note(self, replies: Mapping[str, RecordDict]) -> None:
        """Keep what clients have reported, by their names, for the next round's capacities."""
        if not callable(self._given):
            return
        for name, content in replies.items():
            numbers: dict[str, float] = {}
            for record in metrics_in(content).values():
                for key, value in list(record.items())[:MAX_METRICS]:
                    if (number := finite(value)) is not None:
                        numbers[key] = number
            self._told[name] = {**numbers, CAPACITY_KEY: self._now[name]}

    def state(self) -> dict[str, State]:
        """Return what clients have reported, if a function is to see it again."""
        return {"reported": self._told} if callable(self._given) else {}

    def load_state(self, state: Mapping[str, State]) -> None:
        """Restore what :meth:`state` returned."""
        self._told = TrackedDict(cast(Mapping[str, dict[str, float]], state.get("reported", {})))

    def _one(self, client: Client) -> float:
        if callable(self._given):
            known = {
                **client.facts,
                **self._told.get(client.name, {}),
                CLIENT_NAME_KEY: client.name,
            }
            capacity = self._given(known)
        else:
            capacity = cast(Mapping[str, float], self._given).get(client.name, 0.0)
        if not 0 < capacity <= 1:
            raise PartitionError(
                f"The capacity of client {client.name!r} is {capacity}, but must be a share of the "
                "neurons above 0 and at most 1: name every client, or give a function."
            )
        return float(capacity)


def by_speed(
    seconds_per_step: float, *, start: float = 0.25, smallest: float = 0.02
) -> Callable[[Mapping[str, Any]], float]:
    """Return capacities with which every client's step takes about as long as asked.

    A client reports the metric ``seconds-per-step``. Its next slice is as much larger or smaller as
    its last one was too quick or too slow, by a factor of at most 2 a round.

    Args:
        seconds_per_step: how long one local step should take.
        start: the capacity of a client that has reported nothing.
        smallest: no capacity is below this.
    """

    def capacity(client: Mapping[str, Any]) -> float:
        last, seconds = client.get(CAPACITY_KEY), client.get(SECONDS_KEY)
        if not last or not seconds or seconds <= 0:
            return start
        change = min(2.0, max(0.5, seconds_per_step / seconds))
        return float(min(1.0, max(smallest, last * change)))

    return capacity
