"""Who the clients are: names, silent and broken nodes, and waiting for enough of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_ist.grids import clients
from flower_ist.grids.admission import Admission
from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.clients import ClientRegistry, TooFewClientsError, await_nodes
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.metered import MeteredGrid
from flower_ist.wire.protocol import MAX_NAME_LENGTH
from flower_ist.wire.reported import client_name, last_line
from tests.fakes.faulty import GONE, FaultyGrid, GridClock
from tests.fakes.strategies import SilentGrid
from tests.fakes.tiny import NotingGrid, partition_of, tiny_app


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
    return ClientRegistry().meet(grid, grid.get_node_ids())


def test_clients_come_sorted_by_name_with_their_facts():
    met = meet(answering(lambda k: {"client-name": "cab"[k], "dim": k}), 3)
    assert [client.name for client in met] == ["a", "b", "c"]
    assert [client.facts["dim"] for client in met] == [1, 2, 0]
    assert not any(client.problem for client in met)


def test_each_node_that_answers_is_asked_once():
    grid = NotingGrid(tiny_app(), 3)
    nodes = list(grid.get_node_ids())
    registry = ClientRegistry()
    registry.meet(grid, nodes[:2])
    registry.meet(grid, nodes)
    registry.meet(grid, reversed(nodes))
    assert [(direction, k) for _, direction, _, k, _, _ in grid.notes if direction == "down"] == [
        ("down", 0),
        ("down", 1),
        ("down", 2),
    ]
    assert [registry.name(node) for node in nodes] == ["client-0", "client-1", "client-2"]
    assert registry.name(7) == "node-7"


def test_facts_that_are_told_anew_take_the_place_of_the_old_ones():
    """Number and tokens, but not the name: that is its node's."""
    grid = InProcessGrid(answering(lambda k: {"client-name": "ab"[k], "num-examples": 5}), 2)
    nodes, registry = list(grid.get_node_ids()), ClientRegistry()
    first = registry.meet(grid, nodes)
    assert registry.numbers("num-examples") == [5, 5]
    news = ConfigRecord({"client-name": "b", "num-examples": 9, "shard": "x\n" + 99 * "y"})
    told = Message(RecordDict({"facts": news}), reply_to=Message(RecordDict(), nodes[0], "train"))
    changed = registry.renew(told)
    assert changed is not None
    assert (changed.name, changed.facts["num-examples"]) == ("a", 9)
    assert registry.own_word(nodes[0], "num-examples") == 9
    assert registry.numbers("num-examples") == [9, 5]
    assert registry.shard(nodes[0]) == "x " + 62 * "y" + "..."
    assert registry.shard(nodes[1]) == ""
    assert registry.meet(grid, nodes) is not first
    stranger = Message(RecordDict({"facts": news}), reply_to=Message(RecordDict(), 7, "train"))
    assert registry.renew(stranger) is None


@pytest.mark.parametrize(("examples", "again"), [(6, 1), (5, 0), (4, 0), ("many", 0)])
def test_who_tells_more_examples_than_before_is_asked_again(examples: object, again: int):
    """The reply with which its facts came is lost."""
    questions = []

    def answer(k: int) -> dict[str, object]:
        questions.append(k)
        return {"client-name": f"{k}", "num-examples": 5 if len(questions) < 3 else 6}

    grid = InProcessGrid(answering(answer), 2)
    nodes, registry = list(grid.get_node_ids()), ClientRegistry()
    registry.meet(grid, nodes)
    metrics = MetricRecord({"num-examples": examples}) if isinstance(examples, int) else None
    content = RecordDict() if metrics is None else RecordDict({"metrics": metrics})
    reply = Message(content, reply_to=Message(RecordDict(), nodes[1], "train"))
    assert registry.renew(reply) is None
    for _ in range(3):
        registry.meet(grid, nodes)
    assert questions == [0, 1] + again * [1]
    assert registry.own_word(nodes[1], "num-examples") == 5 + again


def test_what_was_met_is_kept_until_something_changes():
    """With 10,000 clients a round must not sort and check them all: the list is the same object."""
    grid = InProcessGrid(tiny_app(), 3)
    nodes, registry = list(grid.get_node_ids()), ClientRegistry()
    first = registry.meet(grid, nodes)
    assert registry.meet(grid, nodes) is first
    checked: list[str] = []
    admission = Admission(registry, lambda client: checked.append(client.name) or "")  # type: ignore[func-returns-value]
    assert list(admission.nodes(grid)) == list(admission.nodes(grid))
    assert len(checked) == 3
    few = ClientRegistry()
    met = few.meet(grid, nodes[:2])
    few.meet(grid, nodes)  # somebody joins
    assert few.meet(grid, nodes[:2]) is not met


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
    met = ClientRegistry().meet(grid, grid.get_node_ids())
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


def three_clients() -> tuple[FaultyGrid, ClientRegistry]:
    """Return three clients and a registry that has met them."""
    grid = FaultyGrid(tiny_app(), 3)
    registry = ClientRegistry()
    registry.meet(grid, grid.get_node_ids())
    return grid, registry


def names_of(registry: ClientRegistry, grid: FaultyGrid) -> dict[int, str]:
    return {client.node_id: client.name for client in registry.meet(grid, grid.get_node_ids())}


def test_a_client_that_comes_back_has_its_name_again():
    """Its SuperNode was started again: another node id, the same client."""
    grid, registry = three_clients()
    old = grid.nodes[1]
    new = grid.restart(old)
    assert names_of(registry, grid)[new] == "client-1"
    assert registry.name(new) == registry.name(old) == "client-1"
    assert registry.facts(new)["num-examples"] == 10


def test_a_client_that_is_back_before_its_old_self_is_gone():
    """Flower lists a killed node for up to a minute: until then both have a name of their own."""
    grid, registry = three_clients()
    old = grid.nodes[1]
    new = grid.restart(old)
    grid.gone.clear()
    assert names_of(registry, grid) == {
        grid.nodes[0]: "client-0",
        old: "client-1",
        new: f"client-1-{new}",
        grid.nodes[2]: "client-2",
    }
    grid.gone.add(old)
    assert names_of(registry, grid)[new] == "client-1"
    # Should the old one turn up after all, the name stays where it is now.
    grid.gone.clear()
    assert names_of(registry, grid)[new] == "client-1"
    assert names_of(registry, grid)[old] == f"client-1-{old}"


@pytest.fixture
def slow_start(monkeypatch: pytest.MonkeyPatch) -> tuple[FaultyGrid, list[float]]:
    """Two clients, of which the second answers no question before its fourth; when it was asked."""

    class ForgetfulGrid(FaultyGrid):
        """A question that is not answered leaves no node busy."""

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            self._busy_until.clear()
            return super().push_messages(messages)

    grid = ForgetfulGrid(tiny_app(), 2)
    asked_at: list[float] = []

    def delay(message: Message) -> float:
        if message.metadata.dst_node_id == grid.nodes[0]:
            return 0.0
        asked_at.append(grid.now)
        return 0.0 if len(asked_at) == 4 else math.inf

    grid.delay = delay
    monkeypatch.setattr(clients, "time", GridClock(grid))
    return grid, asked_at


def test_a_silent_client_is_asked_again_ever_more_rarely(slow_start):
    """The first wait ends at 5 s; then 60, 120 and 240 s pass, and the fourth answer comes."""
    grid, asked_at = slow_start
    registry = ClientRegistry(query_timeout=5.0)
    silent_until = 0.0
    for _ in range(200):
        if registry.meet(grid, grid.nodes)[1].silent:
            silent_until = grid.now
        grid.now += 5
    assert asked_at == [0, 65, 185, 425]
    assert silent_until == 425
    assert [client.name for client in registry.meet(grid, grid.nodes)] == ["client-0", "client-1"]


def test_a_second_answer_that_comes_twice(slow_start):
    grid, _ = slow_start
    grid.copies = lambda _: 2
    registry = ClientRegistry(query_timeout=5.0)
    for _ in range(100):
        met = registry.meet(grid, grid.nodes)
        grid.now += 5
    assert [client.name for client in met] == ["client-0", "client-1"]


def test_nobody_waits_for_a_client_that_is_asked_again(slow_start):
    grid, asked_at = slow_start
    registry = ClientRegistry(query_timeout=5.0)
    registry.meet(grid, grid.nodes)
    for meeting in (65.0, 185.0):
        grid.now = meeting
        registry.meet(grid, grid.nodes)
        assert grid.now == meeting == asked_at[-1]


def test_the_wait_is_at_most_an_hour(clock):
    grid = SilentGrid(1)
    registry = ClientRegistry()
    asked_at = []
    grid.push_messages = lambda messages: asked_at.append(clock.now)
    grid.pull_messages = lambda ids: []
    for _ in range(2000):
        registry.meet(grid, grid.get_node_ids())
        clock.now += 60
    gaps = [later - one for one, later in pairwise([100.0, *asked_at])]
    assert gaps[:6] == [60, 120, 240, 480, 960, 1920]
    assert set(gaps[6:]) == {3600}


def test_a_node_that_is_gone_is_not_waited_for(clock):
    """The SuperLink answers the second question in its stead; the next one has its usual time."""
    grid = FaultyGrid(tiny_app(), 1)
    grid.dies = lambda _: True
    registry = ClientRegistry()
    for _ in range(40):
        (client,) = registry.meet(grid, grid.nodes)
        assert client.silent
        clock.now += 60
        grid.now += 60
    assert len(registry._pending) <= 1


def test_questions_expire_soon_after_nobody_waits_for_them_any_more():
    sent: list[Message] = []
    grid = SilentGrid(1)
    grid.send_and_receive = lambda messages, timeout: sent.extend(messages) or []
    ClientRegistry(query_timeout=7.0).meet(grid, grid.get_node_ids())
    assert [message.metadata.ttl for message in sent] == [37.0]


def test_who_died_before_it_could_answer_is_silent():
    """The SuperLink's answer in its stead is not the client's: the app would refuse to start."""
    grid = FaultyGrid(tiny_app(), 2)
    dead = grid.nodes[1]
    grid.dies = lambda message: message.metadata.dst_node_id == dead
    clients_met = ClientRegistry().meet(MeteredGrid(grid), grid.nodes)
    assert [(client.name, client.silent) for client in clients_met] == [
        ("client-0", False),
        (f"node-{dead}", True),
    ]
    assert clients_met[1].problem == GONE


def test_a_client_that_was_left_out_is_let_in_once_it_answers(clock, caplog):
    grid = FaultyGrid(tiny_app(), 2)
    late = grid.nodes[1]
    grid.delay = lambda message: 20.0 if message.metadata.dst_node_id == late else 0.0
    admitting = FilteredGrid(
        grid, [Admission(ClientRegistry(query_timeout=5.0), lambda client: client.problem)]
    )
    with caplog.at_level(logging.INFO, "flwr"):
        assert admitting.get_node_ids() == grid.nodes[:1]
        clock.now += 60
        grid.delay, grid.now = lambda _: 0.0, 100.0
        assert admitting.get_node_ids() == grid.nodes[:1]  # it is asked again
        assert admitting.get_node_ids() == grid.nodes
        assert admitting.get_node_ids() == grid.nodes
    assert caplog.messages == [
        f"node-{late} is left out of this run: it gave no answer in time",
        "client-1 has joined after all",
    ]


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
