"""Connections that have not yet shown a registered key: few, short, and the oldest gives way.

The oldest goes, not the newest: a node that arrives while somebody holds hundreds of idle
connections needs a few milliseconds to show its key, and gets them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

LOGIN_SECONDS = 15.0
"""From a connection's beginning until a valid signature has come."""

ACCEPTED_SECONDS = 90.0
"""From a valid signature until the SuperLink has accepted the call; it may be busy."""

MAX_OF_A_PEER = 64
MAX = 512


class Visit:
    """A stranger's connection, in the scope that ends it."""

    def __init__(self, peer: str, scope: anyio.CancelScope) -> None:
        self.peer = peer
        self.scope = scope


class Strangers:
    """All connections that belong to no known node yet, oldest first."""

    def __init__(self) -> None:
        self._visits: dict[Visit, None] = {}
        self._by_peer: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._visits)

    @contextmanager
    def visit(self, peer: str, scope: anyio.CancelScope) -> Iterator[Visit]:
        """Let somebody in, at the cost of the oldest stranger when there are too many.

        Args:
            peer: IP address.
            scope: of the connection's task; it is cancelled when time is up.
        """
        if self._by_peer.get(peer, 0) >= MAX_OF_A_PEER:
            self._end(next(visit for visit in self._visits if visit.peer == peer))
        elif len(self._visits) >= MAX:
            self._end(next(iter(self._visits)))
        visit = Visit(peer, scope)
        scope.deadline = anyio.current_time() + LOGIN_SECONDS
        self._visits[visit] = None
        self._by_peer[peer] = self._by_peer.get(peer, 0) + 1
        try:
            yield visit
        finally:
            self.known(visit)

    def signed(self, visit: Visit) -> None:
        """It has a key, though perhaps not a registered one."""
        if visit in self._visits:
            visit.scope.deadline = anyio.current_time() + ACCEPTED_SECONDS

    def known(self, visit: Visit) -> None:
        """It has shown a registered key, or is gone."""
        if visit in self._visits:
            del self._visits[visit]
            visit.scope.deadline = float("inf")
            self._by_peer[visit.peer] -= 1
            if not self._by_peer[visit.peer]:
                del self._by_peer[visit.peer]

    def _end(self, visit: Visit) -> None:
        self.known(visit)
        visit.scope.cancel()
