"""A round ends at its deadline, and what honest clients have sent until then counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.punctual import PunctualGrid, punctual

app = ClientApp()


@app.query()
def answer(message: Message, _: object) -> Message:
    return Message(RecordDict(), reply_to=message)


class SlowGrid(InProcessGrid):
    """Replies of some nodes take long to fetch; no reply can be fetched twice, as in Flower."""

    def __init__(self, num_clients: int, seconds: dict[int, float]) -> None:
        super().__init__(app, num_clients)
        self.seconds = dict(zip(self.get_node_ids(), [0.0] * num_clients, strict=True))
        for number, wait in seconds.items():
            self.seconds[list(self.get_node_ids())[number]] = wait
        self.node_of: dict[str, int] = {}
        self.fetched: list[str] = []
        self.ended = threading.Event()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        ids = list(super().push_messages(messages))
        for message_id, message in zip(ids, messages, strict=True):
            self.node_of[message_id] = message.metadata.dst_node_id
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for message_id in message_ids:
            assert message_id not in self.fetched
            self.ended.wait(self.seconds[self.node_of[message_id]])
            found = list(super().pull_messages([message_id]))
            self.fetched += [message_id] * bool(found)
            replies += found
        return replies


def questions(grid: InProcessGrid) -> list[Message]:
    return [Message(RecordDict(), node, MessageType.QUERY) for node in grid.get_node_ids()]


def test_a_reply_that_never_comes_holds_up_nobody() -> None:
    slow = SlowGrid(4, {0: 600.0, 2: 600.0})
    start = time.monotonic()
    replies = list(PunctualGrid(slow).send_and_receive(questions(slow), timeout=3.0))
    seconds = time.monotonic() - start
    slow.ended.set()
    nodes = list(slow.get_node_ids())
    assert {reply.metadata.src_node_id for reply in replies} == {nodes[1], nodes[3]}
    assert 2.9 < seconds < 60.0


def test_a_reply_that_takes_long_is_fetched_once_and_given_later() -> None:
    slow = SlowGrid(3, {1: 2.5})
    replies = list(PunctualGrid(slow).send_and_receive(questions(slow), timeout=300.0))
    assert len(replies) == len(slow.fetched) == 3


def test_without_a_timeout_all_replies_are_waited_for() -> None:
    slow = SlowGrid(2, {0: 1.5})
    assert len(list(PunctualGrid(slow).send_and_receive(questions(slow)))) == 2


def test_what_the_grid_raises_is_raised() -> None:
    class Broken(SlowGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            raise RuntimeError("the SuperLink said no")

    broken = Broken(2, {})
    with pytest.raises(RuntimeError, match="said no"):
        list(PunctualGrid(broken).send_and_receive(questions(broken), timeout=60.0))


def test_only_a_deployments_grid_is_wrapped() -> None:
    grid = InProcessGrid(app, 2)
    assert punctual(grid) is grid
