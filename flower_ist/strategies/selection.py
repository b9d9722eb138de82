"""Which clients train in a round, and what is remembered of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from flwr.serverapp import Grid

from flower_ist.grids.clients import Client, ClientRegistry, await_nodes
from flower_ist.strategies.quarantine import Quarantine
from flower_ist.strategies.replies import RoundReport, TrainingFailedError, require_enough
from flower_ist.strategies.sampling import TurnSampler
from flower_ist.strategies.silent_rounds import SilentRounds
from flower_ist.strategies.state import State
from flower_ist.tracked import TrackedDict


class ClientSelection:
    """Choose each round's clients by turns, without those in quarantine.

    Args:
        registry: names the clients.
        quarantine: counts their faults.
        seed: of the order of turns.
        patience: seconds to wait for clients.

    Attributes:
        seats: client name -> its number, in the order in which names were told
            (:mod:`flower_ist.grids.names`), which no client can choose.
    """

    def __init__(
        self, registry: ClientRegistry, quarantine: Quarantine, seed: int, patience: float
    ) -> None:
        self.registry = registry
        self.quarantine = quarantine
        self.turns = TurnSampler(seed)
        self.seats: TrackedDict[int] = TrackedDict()
        self._met: list[Client] = []
        self._held: set[str] = set()
        self._free: dict[str, Client] = {}  # those of them that are not held
        self._patience = patience
        self._silent_rounds = SilentRounds(patience)

    def select(
        self,
        server_round: int,
        grid: Grid,
        *,
        fraction: float,
        min_train_nodes: int,
        min_available_nodes: int,
    ) -> list[Client]:
        """Wait for clients and return those that train in this round.

        Args:
            server_round: at least 1.
            grid: that they are connected to.
            fraction: share of the clients that train, 0 to 1.
            min_train_nodes: fewest clients that train.
            min_available_nodes: fewest clients to wait for.

        Raises:
            TrainingFailedError: quarantine leaves too few.
        """
        node_ids = await_nodes(grid, max(min_available_nodes, min_train_nodes), self._patience)
        self._silent_rounds.begin()
        clients = self.registry.meet(grid, node_ids)
        held = self.quarantine.held(server_round)
        if clients is not self._met or held != self._held:  # else nobody came or went
            self._look_at(clients, held)
        if len(self._free) < min_train_nodes:
            raise TrainingFailedError(
                f"Round {server_round}: {len(self._free)} of {len(node_ids)} clients are not in "
                f"quarantine, but min_train_nodes is {min_train_nodes}."
            )
        count = max(int(len(self._free) * fraction), min_train_nodes)
        return [self._free[name] for name in self.turns.sample(server_round, self._free, count)]

    def close_round(self, server_round: int, good: Iterable[int], report: RoundReport) -> None:
        """Note in the report who was in quarantine, and count who was at fault.

        Args:
            server_round: the round that is over.
            good: the nodes whose replies are used.
            report: names the nodes whose replies were at fault.
        """
        held = self.quarantine.held(server_round)
        report.quarantined = sorted(held & self.seats.keys(), key=self.seats.__getitem__)
        name = self.registry.name
        self.quarantine.note(
            server_round,
            good=[name(node_id) for node_id in good],
            faulty=[name(node_id) for node_id in report.faulty],
        )

    def is_enough(
        self, server_round: int, good: int, asked: int, needed: int, report: RoundReport
    ) -> bool:
        """Return whether a round's good replies are enough to use them.

        Args:
            server_round: the round that is over.
            good: how many replies were good.
            asked: how many were due.
            needed: the fewest that are used.
            report: names the nodes that were refused, and the silent ones.

        Raises:
            TrainingFailedError: they are too few, and nobody is waited for.
        """
        if self._silent_rounds.waits(server_round, good, max(needed, 1), len(report.silent)):
            return False
        require_enough(server_round, good, asked, needed, report, self.registry)
        return True

    def state(self) -> dict[str, State]:
        """Return what must be kept from round to round: seats, quarantine and turns."""
        return {
            "seats": self.seats,
            "quarantine": self.quarantine.state(),
            "turns": self.turns.state(),
        }

    def load_state(self, state: Mapping[str, State]) -> None:
        """Restore what :meth:`state` returned."""
        self.seats = TrackedDict(cast(Mapping[str, int], state["seats"]))
        self.quarantine.load_state(cast(dict[str, dict[str, int]], state["quarantine"]))
        self.turns.load_state(cast(dict[str, Any], state["turns"]))

    def _look_at(self, clients: list[Client], held: set[str]) -> None:
        """Give seats to those who have none, and note who is free to train."""
        for client in sorted(clients, key=lambda client: client.order):
            if client.name not in self.seats:
                self.seats[client.name] = len(self.seats)
        self._met, self._held = clients, held
        self._free = {client.name: client for client in clients if client.name not in held}
