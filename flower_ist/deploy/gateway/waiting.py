"""Hold a node's question for work until there is some: fewer bytes, and nobody waits for a poll.

Flower's SuperNode asks for messages every 3 s, in about 1 kB, and tells every 20 s that it lives.
Here an answer that brings nothing is held back for up to five minutes. HTTP allows any number of
1xx answers before the final one, and each resets the timeout of Flower's client (30 s; 5 s for a
heartbeat). They take 39 bytes with TLS. Meanwhile the gateway asks the SuperLink, over the loopback
interface, with the node's own signed headers, which the SuperLink accepts for five minutes.

Messages usually come for many nodes at once. So only a few questions a second are asked in turn,
and as soon as one brings a message, all are asked.
"""

from __future__ import annotations

import time

import anyio

from flower_ist.deploy.gateway.http import HttpConnection
from flower_ist.deploy.gateway.nodes import Node
from flower_ist.deploy.gateway.superlink import Answer, SuperLink

POLL_TICK_SECONDS = 25.0
HEARTBEAT_TICK_SECONDS = 3.5
_LONGEST_HEARTBEAT_SECONDS = 1800.0
_HEARTBEAT_SECONDS = 20.0
# A SuperNode sleeps for 3 s between two questions; one that waits longer has work or is ending.
_PAUSE_SECONDS = 4.0

_QUESTIONS_PER_SECOND = 20.0
_BUSY_CYCLE_SECONDS = 0.25
_IDLE_CYCLE_SECONDS = 1.0
_BUSY_FOR_SECONDS = 60.0
_AT_ONCE = 8


class Poll:
    """One node's question for messages that is being held."""

    def __init__(self, node: Node, body: bytes) -> None:
        self.node, self.body = node, body
        self.answer: Answer | None = None
        self.over = anyio.Event()

    def end(self, answer: Answer | None) -> None:
        """Give the node its answer; None: there is nothing for it."""
        self.answer = answer
        self.over.set()


class WaitingRoom:
    """All nodes that wait for work.

    Args:
        superlink: where the work comes from.
    """

    def __init__(self, superlink: SuperLink) -> None:
        self._superlink = superlink
        self._polls: dict[Node, Poll] = {}
        self._idle_until: dict[Node, float] = {}
        self._somebody = anyio.Event()
        self._busy_until = 0.0

    def __len__(self) -> int:
        return len(self._polls)

    async def wait_for_message(
        self, node: Node, body: bytes, connection: HttpConnection
    ) -> Answer | None:
        """Hold a question until there is a message; None: there was none, or the node has left."""
        if (earlier := self._polls.get(node)) is not None:
            earlier.end(None)
        poll = self._polls[node] = Poll(node, body)
        self._somebody.set()
        gone = True
        try:
            async with connection.while_open():
                while not poll.over.is_set() and not node.signature_is_old:
                    with anyio.move_on_after(POLL_TICK_SECONDS):
                        await poll.over.wait()
                    if not poll.over.is_set():
                        await connection.still_working()
                gone = False
        finally:
            if self._polls.get(node) is poll:
                del self._polls[node]
                idle = poll.answer is None and not gone
                self._idle_until[node] = time.monotonic() + _PAUSE_SECONDS if idle else 0.0
        return poll.answer

    async def keep_alive(
        self, node: Node, body: bytes, connection: HttpConnection, answer: Answer
    ) -> Answer:
        """Hold a heartbeat while the node waits for work, and repeat it in the node's place."""
        began = asked = time.monotonic()
        async with connection.while_open():
            ticked = began
            while self._is_idle(node) and time.monotonic() - began < _LONGEST_HEARTBEAT_SECONDS:
                await anyio.sleep(0.5)
                if time.monotonic() - ticked >= HEARTBEAT_TICK_SECONDS:
                    ticked = time.monotonic()
                    await connection.still_working()
                if time.monotonic() - asked >= _HEARTBEAT_SECONDS:
                    asked = time.monotonic()
                    repeated = await self._superlink.call("send-node-heartbeat", body, node.headers)
                    if repeated.status != 503 and repeated.content != answer.content:
                        answer = repeated  # the SuperLink no longer knows the node: it must hear
                        break
        return answer

    def leave(self, node: Node) -> None:
        """The node goes: nothing is held for it any longer."""
        self._idle_until.pop(node, None)
        if (poll := self._polls.pop(node, None)) is not None:
            poll.end(None)

    def _is_idle(self, node: Node) -> bool:
        return node in self._polls or time.monotonic() < self._idle_until.get(node, 0.0)

    async def run(self) -> None:
        """Ask the SuperLink for the nodes' messages, for ever."""
        while True:
            if not self._polls:
                self._somebody = anyio.Event()
                await self._somebody.wait()
            polls = list(self._polls.values())
            busy = time.monotonic() < self._busy_until
            cycle = _BUSY_CYCLE_SECONDS if busy else _IDLE_CYCLE_SECONDS
            pause = max(cycle / len(polls), 1 / _QUESTIONS_PER_SECOND)
            for poll in polls:
                began = time.monotonic()
                if await self._ask(poll):
                    self._busy_until = time.monotonic() + _BUSY_FOR_SECONDS
                    await self._ask_all()
                    break
                await anyio.sleep(max(0.0, pause - (time.monotonic() - began)))

    async def _ask_all(self) -> None:
        limit = anyio.CapacityLimiter(_AT_ONCE)

        async def ask(poll: Poll) -> None:
            async with limit:
                await self._ask(poll)

        async with anyio.create_task_group() as tasks:
            for poll in list(self._polls.values()):
                tasks.start_soon(ask, poll)

    async def _ask(self, poll: Poll) -> bool:
        """Ask for one node's message, and return whether there was one."""
        if poll.over.is_set() or self._polls.get(poll.node) is not poll:
            return False
        answer = await self._superlink.call("pull-messages", poll.body, poll.node.headers)
        if answer.status == 503 or (answer.status == 200 and not answer.content):
            return False
        if answer.status == 200:
            poll.node.got_message(answer.content)
        poll.end(answer)
        return answer.status == 200
