"""Who the clients are: names, silent and broken nodes, and waiting for enough of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes import SilentGrid
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from tiny import NotingGrid, partition_of, tiny_app

from flower_ist import clients
from flower_ist.clients import (
    MAX_NAME_LENGTH,
    Roster,
    TooFewClientsError,
    await_nodes,
    client_name,
    last_line,
)
from flower_ist.inprocess import InProcessGrid


def answering(answer: Callable[[int], dict[str, object]]) -> ClientApp:
    """Make a ClientApp whose query replies are what ``answer`` says of a partition."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        record = ConfigRecord(answer(partition_of(context)))  # type: ignore[arg-type]
        return Message(RecordDict({"any": record}), reply_to=message)

    return app


def meet(app: ClientApp, num_clients: int) -> list[clients.Client]:
    grid = InProcessGrid(app, num_clients)
    return Roster().meet(grid, grid.get_node_ids())


def test_clients_come_sorted_by_name_with_their_facts():
    met = meet(answering(lambda k: {"client-name": "cab"[k], "dim": k}), 3)
    assert [client.name for client in met] == ["a", "b", "c"]
    assert [client.facts["dim"] for client in met] == [1, 2, 0]
    assert not any(client.problem for client in met)


def test_each_node_is_asked_once():
    grid = NotingGrid(tiny_app(), 3)
    nodes = list(grid.get_node_ids())
    roster = Roster()
    roster.meet(grid, nodes[:2])
    roster.meet(grid, nodes)
    roster.meet(grid, reversed(nodes))
    assert [(direction, k) for _, direction, _, k, _, _ in grid.notes if direction == "down"] == [
        ("down", 0),
        ("down", 1),
        ("down", 2),
    ]
    assert [roster.name(node) for node in nodes] == ["client-0", "client-1", "client-2"]
    assert roster.name(7) == "node-7"


def test_clients_of_one_name_stay_apart():
    met = meet(answering(lambda k: {"client-name": "shard"}), 3)
    names = [client.name for client in met]
    assert len(set(names)) == 3
    assert sorted(names) == ["shard", *(f"shard-{c.node_id}" for c in met if c.name != "shard")]


def test_a_name_made_for_a_copy_may_be_taken_too():
    """Node 2 is called as the copy of node 1's shard on node 3 would be."""
    nodes = list(InProcessGrid(ClientApp(), 3).get_node_ids())
    names = ["shard", f"shard-{nodes[2]}", "shard"]
    met = meet(answering(lambda k: {"client-name": names[k]}), 3)
    assert len({client.name for client in met}) == 3


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * (MAX_NAME_LENGTH + 1),
        "a\nb",
        "a\x1b[31mb",
        "\u202eabc",
        "\0",
        5,
        b"a",
        ["a"],
        True,
    ],
)
def test_hostile_names_are_not_used(name):
    met = meet(answering(lambda k: {"client-name": name} if k else {"client-name": "fine"}), 2)
    assert sorted(client.name for client in met) == ["fine", f"node-{met[1].node_id}"]


@pytest.mark.parametrize("name", ["x" * MAX_NAME_LENGTH, "Klinik Süd 3", "患者"])
def test_names_that_are_fine(name):
    assert [client.name for client in meet(answering(lambda _: {"client-name": name}), 1)] == [name]


def test_silent_nodes_have_a_name_and_a_problem():
    grid = SilentGrid(2)
    met = Roster().meet(grid, grid.get_node_ids())
    assert [client.name for client in met] == [f"node-{node}" for node in grid.get_node_ids()]
    assert {client.problem for client in met} == {"it gave no answer in time"}


def test_a_client_that_fails_tells_why():
    def answer(_: int) -> dict[str, object]:
        raise OSError("the disk is gone")

    (client,) = meet(answering(answer), 1)
    assert client.problem == "OSError: the disk is gone"
    assert client.facts == {}


def test_a_client_without_a_query_function_is_one_all_the_same():
    (client,) = meet(ClientApp(), 1)
    assert client.name == f"node-{client.node_id}"
    assert "query" in client.problem


def test_an_error_has_no_name():
    message = Message(RecordDict(), dst_node_id=5, message_type="query")
    assert client_name(Message(Error(2, "no"), reply_to=message)) is None
    assert client_name(Message(RecordDict(), reply_to=message)) is None


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (None, "no reason given"),
        ("", "no reason given"),
        (" \n '>\n", "no reason given"),
        ("Traceback\n  File\nValueError: no\n\n", "ValueError: no"),
        ("x" * 900, "x" * 300),
        ("RuntimeError: \x1b[2Jgone.", "RuntimeError:  [2Jgone"),
    ],
)
def test_the_last_line_of_a_traceback(reason, line):
    assert last_line(reason) == line


class Clock:
    """Stands for the time module: sleeping takes no time and is written down."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class GrowingGrid(SilentGrid):
    """One more node is connected each time that somebody asks."""

    def __init__(self) -> None:
        super().__init__(9)
        self.asked = 0

    def get_node_ids(self) -> list[int]:
        self.asked += 1
        return list(super().get_node_ids())[: self.asked]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(clients, "time", clock)
    return clock


def test_waiting_ends_as_soon_as_enough_nodes_are_there(clock):
    assert len(await_nodes(GrowingGrid(), 3, timeout=60)) == 3
    assert clock.slept == [1.0, 1.0]


def test_nodes_that_are_there_are_not_waited_for(clock):
    assert len(await_nodes(SilentGrid(4), 3, timeout=0)) == 4
    assert clock.slept == []


def test_waiting_ends_at_the_timeout_with_a_remedy(clock):
    message = r"5 SuperNodes are needed, 2 are .* after 2 s: .*'num-supernodes=5'"
    with pytest.raises(TooFewClientsError, match=message):
        await_nodes(SilentGrid(2), 5, timeout=2.5)
    assert clock.slept == [1.0, 1.0, 0.5]
