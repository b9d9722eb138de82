"""Leave out clients whose replies were refused again and again.

What counts is what a client sent: arrays of a wrong shape, values that are not finite, a number of
examples above its own word, an update far larger than the others', or bytes that cannot be decoded
(:data:`flower_ist.wire.protocol.REFUSED_CODE`). After a number of such faults in a row the client
is no longer asked.

An error, a timeout or a lost connection is not a fault. It brings nothing into the model, a hostile
client gains nothing by it, and devices with bad links would be the first to go; such a round leaves
the count as it is. If it reset the count, a hostile client would fall silent every third round.
Only a good reply resets it.

A client is known by the name that the registry gave it. Where nodes are not authenticated a client
can connect anew under another name, and is then another client.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flower_ist.errors import ArgumentError

_log = logging.getLogger("flwr")

# The end of a quarantine that lasts for the rest of the run.
_FOR_GOOD = -1


@dataclass
class Quarantine:
    """Count each client's faults in a row, and say who is left out.

    Attributes:
        after: faults in a row that send a client into quarantine; 0: nobody is ever sent.
        rounds: how many rounds it stays there; 0: for the rest of the run. A client that comes back
            is sent there again by its next fault.
        faults: client name -> faults in a row so far.
        until: client name -> first round in which it may train again, -1 for never.
    """

    after: int = 3
    rounds: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    until: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing.

        Raises:
            ArgumentError: one is below 0.
        """
        for name, number in (("after", self.after), ("rounds", self.rounds)):
            if number < 0:
                raise ArgumentError(f"quarantine_{name} is {number}, but must be at least 0.")

    def holds(self, name: str, server_round: int) -> bool:
        """Return whether a client is left out of a round."""
        end = self.until.get(name, 0)
        return end == _FOR_GOOD or server_round < end

    def held(self, server_round: int) -> set[str]:
        """Return the clients that are left out of a round."""
        return {name for name in self.until if self.holds(name, server_round)}

    def note(self, server_round: int, good: Collection[str], faulty: Collection[str]) -> None:
        """Count a round's replies, by client name; silent and failing clients are in neither.

        Args:
            server_round: the round that is over.
            good: whose replies were used.
            faulty: whose replies were refused for what they held.
        """
        for name in good:
            self.faults.pop(name, None)
        for name in faulty:
            self.faults[name] = self.faults.get(name, 0) + 1
            if self.after and self.faults[name] >= self.after:
                self.until[name] = server_round + 1 + self.rounds if self.rounds else _FOR_GOOD
                _log.warning(
                    "%s is in quarantine %s: its replies were refused %d times in a row",
                    name,
                    f"for {self.rounds} rounds" if self.rounds else "for the rest of the run",
                    self.faults[name],
                )

    def state(self) -> dict[str, dict[str, int]]:
        """Return what must be kept from round to round."""
        return {"faults": dict(self.faults), "until": dict(self.until)}

    def load_state(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Restore what :meth:`state` returned."""
        self.faults, self.until = dict(state["faults"]), dict(state["until"])
