"""A Grid that keeps its deadlines, whatever a client does.

Flower's ``HttpGrid`` fetches replies one after another, each to its end. A client that announces a
reply and never uploads it holds up the call for minutes, past every timeout, and the other clients'
replies, which have arrived, are never looked at. It also sleeps for 3 s between two looks.

Here each reply is fetched by itself. A reply whose upload has begun but does not come is left to a
thread of its own, and the others are fetched meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

from flwr.app import Message
from flwr.serverapp import Grid

from flower_ist.grids.chain import FilteredGrid
from flower_ist.wire._flwr import is_http_grid

_PATIENCE_SECONDS = 1.0
_PAUSE_SECONDS = 0.25
# Of the time that a look at all replies took: the SuperLink has other things to do.
_PAUSE_SHARE = 2.0


def punctual(grid: Grid) -> Grid:
    """Return a grid that keeps its deadlines: the same one, unless it is a deployment's."""
    return PunctualGrid(grid) if is_http_grid(grid) else grid


class PunctualGrid(FilteredGrid):
    """Fetch each reply by itself, and wait for none that does not come.

    Args:
        grid: the grid to wrap; its ``pull_messages`` is called from several threads.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid, [])
        self._lock = threading.Lock()
        self._being_fetched: set[str] = set()
        self._arrived: dict[str, list[Message]] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there, and in later calls those that take longer."""
        wanted = list(message_ids)
        with self._lock:
            # A reply can be fetched only once: after that the SuperLink no longer knows it.
            taken = self._being_fetched | self._arrived.keys()
            todo = deque(i for i in wanted if i not in taken)
        _Look(self, todo).wait()
        with self._lock:
            return [reply for i in wanted for reply in self._arrived.pop(i, ())]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and return the replies that have arrived within ``timeout`` seconds."""
        start = time.monotonic()
        waiting = {i for i in self.push_messages(messages) if i}
        replies: list[Message] = []
        while waiting:
            began = time.monotonic()
            for reply in self.pull_messages(waiting):
                replies.append(reply)
                waiting.discard(reply.metadata.reply_to_message_id)
            now = time.monotonic()
            left = float("inf") if timeout is None else start + timeout - now
            if left <= 0 or not waiting:
                break
            time.sleep(min(left, max(_PAUSE_SECONDS, _PAUSE_SHARE * (now - began))))
        return replies

    def fetch(self, message_id: str) -> None:
        """Fetch one reply, for as long as it takes."""
        with self._lock:
            self._being_fetched.add(message_id)
        replies: list[Message] = []
        try:
            replies = list(self._grid.pull_messages([message_id]))
        finally:
            with self._lock:
                self._being_fetched.discard(message_id)
                if replies:
                    self._arrived[message_id] = replies


class _Look:
    """One look at all replies, by one thread and a further one for each that is stuck."""

    def __init__(self, grid: PunctualGrid, todo: deque[str]) -> None:
        self._grid = grid
        self._todo = todo
        self._progress = threading.Condition()
        self._done = 0
        self._running = 0
        self._error: BaseException | None = None

    def wait(self) -> None:
        """Return when each reply was looked at, or is being fetched and takes long.

        Raises:
            Exception: what the grid has raised.
        """
        with self._progress:
            while self._todo and self._error is None:
                self._running += 1
                threading.Thread(target=self._work, daemon=True).start()
                while self._running and self._advances():
                    pass
            if self._error is not None:
                raise self._error

    def _advances(self) -> bool:
        """Wait for the next reply; return False if none was fetched in time."""
        before = self._done
        return self._progress.wait_for(lambda: self._done > before, _PATIENCE_SECONDS)

    def _work(self) -> None:
        try:
            while self._error is None:
                try:
                    message_id = self._todo.popleft()
                except IndexError:
                    break
                self._grid.fetch(message_id)
                with self._progress:
                    self._done += 1
                    self._progress.notify_all()
        except BaseException as error:
            with self._progress:
                self._error = error
        finally:
            with self._progress:
                self._running -= 1
                self._done += 1
                self._progress.notify_all()
