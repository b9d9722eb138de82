"""Show a strategy only the clients that pass a check."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

from flower_ist.grids.chain import Filter, refused
from flower_ist.grids.clients import Client, ClientRegistry

_log = logging.getLogger("flwr")


class Admission(Filter):
    """Leave out the clients that a check rejects.

    It works for any strategy, unchanged, and for clients that connect later. Each client that is
    left out is logged once, with the reason.

    Args:
        registry: gets the clients' facts.
        check: returns why a client must be left out, or an empty string.
    """

    def __init__(self, registry: ClientRegistry, check: Callable[[Client], str]) -> None:
        self._registry = registry
        self._check = check
        self._left_out: set[int] = set()
        self._met: list[Client] = []
        self._admitted: list[int] = []

    def nodes(self, grid: Grid) -> Iterable[int]:
        """Return the ids of the nodes that are let in."""
        clients = self._registry.meet(grid, grid.get_node_ids())
        if clients is self._met:  # nobody came, went or answered since
            return list(self._admitted)
        admitted = []
        for client in clients:
            reason = self._check(client)
            if not reason:
                admitted.append(client.node_id)
                if client.node_id in self._left_out:
                    self._left_out.remove(client.node_id)
                    _log.info("%s has joined after all", client.name)
            elif client.node_id not in self._left_out:
                self._left_out.add(client.node_id)
                _log.warning("%s is left out of this run: %s", client.name, reason)
        self._met, self._admitted = clients, admitted
        return list(admitted)

    def up(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Note whose data have changed; who could not have joined with them has no part either."""
        for reply in replies:
            client = self._registry.renew(reply)
            if client is not None:
                _log.info("The data of %s have changed", client.name)
                if reason := self._check(client):
                    reply = refused(reply, f"its data have changed: {reason}")
            yield reply
