"""A round ends at its deadline, and what honest clients have sent until then counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.fetching import Fetcher
from flower_ist.grids.inprocess import InProcessGrid

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


@pytest.fixture
def http_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the grids here for Flower's HttpGrid."""
    monkeypatch.setattr(SlowGrid, "__module__", "flwr.superlink.grid.http_grid")
    monkeypatch.setattr("flower_ist.grids.chain.is_http_grid", lambda _: True)


def ask(grid: SlowGrid, timeout: float | None) -> list[Message]:
    return list(FilteredGrid(grid, []).send_and_receive(questions(grid), timeout=timeout))


@pytest.mark.usefixtures("http_grids")
def test_a_reply_that_never_comes_holds_up_nobody() -> None:
    slow = SlowGrid(4, {0: 600.0, 2: 600.0})
    start = time.monotonic()
    replies = ask(slow, 3.0)
    seconds = time.monotonic() - start
    slow.ended.set()
    nodes = list(slow.get_node_ids())
    assert {reply.metadata.src_node_id for reply in replies} == {nodes[1], nodes[3]}
    assert 2.9 < seconds < 60.0


@pytest.mark.usefixtures("http_grids")
def test_a_reply_that_takes_long_is_fetched_once_and_given_later() -> None:
    slow = SlowGrid(3, {1: 2.5})
    assert len(ask(slow, 300.0)) == len(slow.fetched) == 3


@pytest.mark.usefixtures("http_grids")
def test_without_a_timeout_all_replies_are_waited_for() -> None:
    slow = SlowGrid(2, {0: 1.5})
    assert len(ask(slow, None)) == 2


@pytest.mark.usefixtures("http_grids")
def test_filters_that_pull_by_themselves_are_not_held_up_either() -> None:
    slow = SlowGrid(3, {1: 600.0})
    grid = FilteredGrid(slow, [])
    ids = list(grid.push_messages(questions(slow)))
    start = time.monotonic()
    assert len(list(grid.pull_messages(ids))) == 2
    assert time.monotonic() - start < 60
    slow.ended.set()


def test_what_the_grid_raises_is_raised() -> None:
    def pull(_: object) -> list[Message]:
        raise RuntimeError("the SuperLink said no")

    with pytest.raises(RuntimeError, match="said no"):
        Fetcher(pull).pull_messages(["a", "b"])
