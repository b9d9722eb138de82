"""Fetch replies so that none of them holds up the others.

Flower's ``HttpGrid`` fetches replies one after another, each to its end. A client that announces a
reply and never uploads it holds up the call for minutes, past every timeout, and the other clients'
replies, which have arrived, are never looked at.

Here each reply is fetched by itself. One whose upload has begun but does not come is left to a
thread of its own, and the others are fetched meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from flwr.app import Message

PATIENCE_SECONDS = 1.0
"""So long the replies to one call may stand still before it goes on without them."""


class Fetcher:
    """A grid's ``pull_messages`` that waits for no reply that does not come.

    Args:
        pull: the grid's own; it is called from several threads.
    """

    def __init__(self, pull: Callable[[Iterable[str]], Iterable[Message]]) -> None:
        self._pull = pull
        self._lock = threading.Lock()
        self._being_fetched: set[str] = set()
        self._arrived: dict[str, list[Message]] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there, and in later calls those that take longer."""
        wanted = list(message_ids)
        with self._lock:
            # A reply can be fetched only once: after that the SuperLink no longer knows it.
            taken = self._being_fetched | self._arrived.keys()
            todo = deque(i for i in wanted if i not in taken)
        _Look(self._fetch, todo).wait()
        with self._lock:
            return [reply for i in wanted for reply in self._arrived.pop(i, ())]

    def _fetch(self, message_id: str) -> None:
        """Fetch one reply, for as long as it takes."""
        with self._lock:
            self._being_fetched.add(message_id)
        replies: list[Message] = []
        try:
            replies = list(self._pull([message_id]))
        finally:
            with self._lock:
                self._being_fetched.discard(message_id)
                if replies:
                    self._arrived[message_id] = replies


class _Look:
    """One look at all replies, by one thread and a further one for each that is stuck."""

    def __init__(self, fetch: Callable[[str], None], todo: deque[str]) -> None:
        self._fetch = fetch
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
        return self._progress.wait_for(lambda: self._done > before, PATIENCE_SECONDS)

    def _work(self) -> None:
        try:
            while self._error is None:
                try:
                    message_id = self._todo.popleft()
                except IndexError:
                    break
                self._fetch(message_id)
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
