"""A SuperLink in this process with a clock of its own, and nodes that dawdle, die and come back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.wire._flwr import set_message_id

GONE = "Error: Node Unavailable"
SUPERLINK = 1


class FaultyGrid(InProcessGrid):
    """Deliver as Flower does, in seconds of ``now``.

    A node answers one message after the other. Whoever waits for replies gets those that are there
    in time; later ones stay with the SuperLink. A message that has outlived its time is not
    delivered. For a node that is gone the SuperLink answers with an error and its own node id.

    ``delay(message)`` is the seconds that a node takes for a message (infinite: it never answers),
    ``dies(message)`` whether it dies of it, ``copies(message)`` how often its reply comes.
    """

    def __init__(
        self, app: ClientApp, num_clients: int, run_config: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(app, num_clients, dict(run_config or {}))
        self.now = 0.0
        self.delay: Callable[[Message], float] = lambda _: 0.0
        self.dies: Callable[[Message], bool] = lambda _: False
        self.copies: Callable[[Message], int] = lambda _: 1
        self.nodes = list(super().get_node_ids())
        self.gone: set[int] = set()
        self.trained: list[tuple[int, int]] = []
        self._due: dict[str, tuple[float, list[Message]]] = {}
        self._busy_until: dict[int, float] = {}

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self._contexts if node not in self.gone]

    def restart(self, node: int) -> int:
        """Start a node again: same data, another node id."""
        self.gone.add(node)
        new = max(self._contexts) + 1
        old = self._contexts[node]
        self._contexts[new] = Context(
            old.run_id, new, old.node_config, RecordDict(), old.run_config
        )
        return new

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            self._sent += 1
            set_message_id(message, f"{self._sent:064x}")
            ids.append(message.metadata.message_id)
            begin = max(self.now, self._busy_until.get(node, 0.0))
            if self.dies(message):
                self.gone.add(node)
            if node in self.gone:
                answer = Message(Error(5, GONE), reply_to=message)
                answer.metadata.__dict__["_src_node_id"] = SUPERLINK
                self._due[ids[-1]] = (self.now + 50.0, [answer])
            elif begin <= self.now + message.metadata.ttl:
                end = begin + self.delay(message)
                if message.metadata.message_type == "train":
                    config = message.content.config_records["config"]
                    self.trained.append((node, int(str(config["server-round"]))))
                self._busy_until[node] = end
                self._due[ids[-1]] = (end, [self._answer(message)] * self.copies(message))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ready = [i for i in message_ids if i in self._due and self._due[i][0] <= self.now]
        return [reply for i in sorted(ready) for reply in self._due.pop(i)[1]]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        ids = list(self.push_messages(messages))
        limit = self.now + (math.inf if timeout is None else timeout)
        last = max((self._due.get(i, (math.inf,))[0] for i in ids), default=self.now)
        self.now = max(self.now, min(last, limit))
        return self.pull_messages(ids)


class DutyGrid(FaultyGrid):
    """All nodes are awake for the first ``awake`` seconds of each ``period``, and then gone.

    What a node has not answered when it falls asleep is lost, and the SuperLink says so.
    """

    awake = period = math.inf

    def get_node_ids(self) -> Iterable[int]:
        return super().get_node_ids() if self.now % self.period < self.awake else []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        ids = list(super().push_messages(messages))
        asleep = self.now - self.now % self.period + self.awake
        for message_id, message in zip(ids, messages, strict=True):
            if self._due[message_id][0] > asleep:
                answer = Message(Error(5, GONE), reply_to=message)
                answer.metadata.__dict__["_src_node_id"] = SUPERLINK
                self._due[message_id] = (max(self.now, asleep), [answer])
                self._busy_until[message.metadata.dst_node_id] = asleep
        return ids


class GridClock:
    """Stands for the time module: the grid's seconds count, and the hour of the day is the real."""

    def __init__(self, grid: FaultyGrid) -> None:
        self._grid = grid

    def monotonic(self) -> float:
        return self._grid.now

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        self._grid.now += seconds
