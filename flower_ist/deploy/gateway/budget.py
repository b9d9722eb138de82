"""A bound on the memory that requests and answers in flight take, shared fairly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Hold:
    """Memory that is held."""

    def __init__(self, budget: Budget, owner: object, size: int) -> None:
        self._budget, self._owner, self._size = budget, owner, size

    def keep(self, size: int) -> None:
        """Give back all but ``size`` bytes."""
        if size < self._size:
            self._budget._add(self._owner, size - self._size)
            self._size = size


class Budget:
    """Bytes that may be held at once; who wants more waits.

    A request's bytes are asked for at once, before the first of them is read: nothing half-read can
    wait for something else half-read.

    Args:
        total: bytes for all.
        each: bytes for one owner; a slow one holds up only itself.
    """

    def __init__(self, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._used = 0
        self._by_owner: dict[object, int] = {}
        self._freed = anyio.Event()

    @asynccontextmanager
    async def hold(self, owner: object, size: int) -> AsyncIterator[Hold]:
        """Hold ``size`` bytes during the block, after waiting until they are free."""
        while self._used + size > self._total or self._by_owner.get(owner, 0) + size > self._each:
            await self._freed.wait()
        hold = Hold(self, owner, size)
        self._add(owner, size)
        try:
            yield hold
        finally:
            hold.keep(0)

    def _add(self, owner: object, size: int) -> None:
        self._used += size
        self._by_owner[owner] = self._by_owner.get(owner, 0) + size
        if not self._by_owner[owner]:
            del self._by_owner[owner]
        if size < 0:
            self._freed.set()
            self._freed = anyio.Event()
