"""The meter: every figure is that of the very messages, for any strategy, which it leaves alone."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import asdict

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from flower_ist.grids import metered as meter_module
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.metered import MeteredGrid, Traffic
from tests.fakes.faulty import FaultyGrid
from tests.fakes.tiny import REPORT, WEIGHTS, NotingGrid, model, tiny_app


def fedavg(**options: object) -> FedAvg:
    return FedAvg(**{"min_available_nodes": 1, **options})  # type: ignore[arg-type]


def federate(grid: Grid, num_rounds: int = 2, **options: object) -> dict[str, np.ndarray]:
    result = fedavg(**options).start(grid=grid, initial_arrays=model(), num_rounds=num_rounds)
    return {name: array.numpy() for name, array in result.arrays.items()}


def metered(grid: NotingGrid, **options: object) -> MeteredGrid:
    """Return the meter of two rounds of Flower's FedAvg among clients that were asked before."""
    meter = MeteredGrid(grid)
    ClientRegistry().meet(meter, meter.get_node_ids())
    federate(meter, **options)
    return meter


def sums(notes: Iterable[tuple[int, str, str, int, int, int]]) -> Traffic:
    """Add up notes as the meter should."""
    total = Traffic()
    for _, direction, _, _, wire, payload in notes:
        down, up = int(direction == "down"), int(direction == "up")
        total.add(Traffic(wire * down, wire * up, payload * down, payload * up, down, up))
    return total


def test_every_figure_is_that_of_the_very_messages():
    """Round 0 is one query; rounds 1 and 2 train and evaluate on all three clients."""
    grid = NotingGrid(tiny_app(), 3)
    meter = metered(grid)
    assert sorted(meter.rounds) == [0, 1, 2]
    for server_round, traffic in meter.rounds.items():
        notes = [note for note in grid.notes if note[0] == server_round]
        assert traffic.total == sums(notes)
        assert traffic.by_type == {
            kind: sums(n for n in notes if n[2] == kind) for kind in {n[2] for n in notes}
        }
        assert traffic.by_node == {
            node: sums(n for n in notes if n[3] == k) for k, node in enumerate(grid.get_node_ids())
        }
    assert sorted(meter.traffic(0).by_type) == ["query"]
    assert sorted(meter.traffic(2).by_type) == ["evaluate", "train"]


def test_payload_by_hand():
    """6 + 2 float32 numbers are 32 bytes: down to train and to evaluate, up from training."""
    meter = metered(NotingGrid(tiny_app(), 3))
    by_type = meter.traffic(1).by_type
    for kind, up in (("train", 3 * 32), ("evaluate", 0)):
        assert (by_type[kind].payload_bytes_down, by_type[kind].payload_bytes_up) == (3 * 32, up)
        assert (by_type[kind].messages_down, by_type[kind].messages_up) == (3, 3)
    assert meter.traffic(0).total.payload_bytes_down == 0


def test_parts_add_up_to_the_totals():
    for traffic in metered(NotingGrid(tiny_app(), 3)).rounds.values():
        for parts in (traffic.by_node, traffic.by_type):
            for field, total in asdict(traffic.total).items():
                assert sum(getattr(part, field) for part in parts.values()) == total


def test_fedavg_gives_the_same_weights_without_a_meter():
    """Two rounds add 1, 1.1 and 1.2 each, so 2.2 in the mean."""
    # FedAvg draws its clients, and so the order of its sums, from Python's global generator.
    random.seed(0)
    without = federate(NotingGrid(tiny_app(), 3))
    random.seed(0)
    with_meter = federate(MeteredGrid(NotingGrid(tiny_app(), 3)))
    for name, weight in WEIGHTS.items():
        assert with_meter[name].tobytes() == without[name].tobytes()
        np.testing.assert_allclose(with_meter[name], weight + 2.2, rtol=1e-6)


def test_inputs_are_summed_over_the_clients_that_trained():
    traffic = metered(NotingGrid(tiny_app(), 3)).traffic(1)
    assert traffic.inputs == {
        "image_bytes": 3 * 2000,
        "image_file_bytes": 3 * 1500,
        "masked_image_bytes": 3 * 1000,
        "token_bytes": 3 * 80,
        "examples": 3 * 20,
    }
    assert traffic.local_steps == 5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -7, -2.5, [1, 2], [], [math.nan]])
def test_hostile_figures_count_as_nothing(value):
    """Client 1 reports nonsense beside its number of examples: the others' sums stay."""
    hostile = {key: value for key in REPORT if key != "num-examples"} | {"num-examples": 10}
    meter = MeteredGrid(NotingGrid(tiny_app(report=lambda k: hostile if k == 1 else REPORT), 3))
    # Flower's own mean of metrics refuses lists; the meter does not care who averages.
    messages = fedavg().configure_train(1, model(), ConfigRecord(), meter)
    list(meter.send_and_receive(messages))
    traffic = meter.traffic(1)
    assert traffic.inputs["image_bytes"] == 2 * 2000
    assert traffic.inputs["examples"] == 2 * 20
    assert traffic.local_steps == 5
    assert len(traffic.replied) == 3


def test_replies_without_metrics_count_too():
    meter = MeteredGrid(NotingGrid(tiny_app(report=lambda _: {}), 2))
    list(meter.send_and_receive(fedavg().configure_train(1, model(), ConfigRecord(), meter)))
    assert set(meter.traffic(1).inputs.values()) == {0}
    assert len(meter.traffic(1).replied) == 2


def test_errors_and_silence_are_not_replies():
    """Client 0 fails and client 2 is not heard of; 1 and 3 answer."""
    app = tiny_app(fails=lambda k: k == 0)
    meter = metered(NotingGrid(app, 4, lose=lambda kind, k: (kind, k) == ("train", 2)))
    traffic = meter.traffic(1)
    nodes = list(meter.get_node_ids())
    assert traffic.selected == set(nodes)
    assert traffic.replied == {nodes[1], nodes[3]}
    assert traffic.failures == {nodes[0]: "RuntimeError: client 0 is broken"}
    train = traffic.by_type["train"]
    assert (train.messages_down, train.messages_up) == (4, 3)
    assert train.payload_bytes_up == 2 * 32
    assert traffic.inputs["examples"] == 2 * 20


def test_pushing_and_pulling_counts_the_same():
    def train_traffic(exchange: Callable[[Grid, list[Message]], None]) -> Traffic:
        meter = MeteredGrid(NotingGrid(tiny_app(), 2))
        exchange(meter, list(fedavg().configure_train(1, model(), ConfigRecord(), meter)))
        return meter.traffic(1).total

    def by_hand(grid: Grid, messages: list[Message]) -> None:
        list(grid.pull_messages(grid.push_messages(messages)))

    def at_once(grid: Grid, messages: list[Message]) -> None:
        list(grid.send_and_receive(messages))

    assert train_traffic(by_hand) == train_traffic(at_once)


def test_messages_of_no_round_count_to_the_one_that_began():
    meter = MeteredGrid(NotingGrid(tiny_app(), 1))
    (node,) = meter.get_node_ids()
    meter.meter.current_round = 7
    list(meter.send_and_receive([Message(RecordDict(), node, "query")]))
    assert sorted(meter.rounds) == [7]
    assert meter.traffic(7).by_type["query"].messages_up == 1


def test_nothing_sent_is_nothing_counted():
    meter = MeteredGrid(NotingGrid(tiny_app(), 1))
    assert list(meter.send_and_receive([])) == []
    assert meter.traffic(0).total == Traffic()


class Pulled(FaultyGrid):
    """A grid that notes which replies are asked for; clients are told by their position."""

    def __init__(self, num_clients: int, seconds: dict[int, float]) -> None:
        super().__init__(tiny_app(), num_clients)
        self.delay = lambda message: seconds.get(self.nodes.index(message.metadata.dst_node_id), 0)
        self.pulled: list[list[str]] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.pulled.append(list(message_ids))
        return super().pull_messages(self.pulled[-1])

    def training(self, server_round: int) -> list[Message]:
        content = RecordDict(
            {"arrays": model(), "config": ConfigRecord({"server-round": server_round})}
        )
        return [Message(content, node, "train") for node in self.nodes]


def two_rounds(seconds: dict[int, float]) -> tuple[Pulled, MeteredGrid]:
    """Play two rounds of 10 s; the seconds are those of round 1, and round 2 takes none."""
    grid = Pulled(3, seconds)
    meter = MeteredGrid(grid)
    for server_round in (1, 2):
        list(meter.send_and_receive(grid.training(server_round), timeout=10))
        grid.delay = lambda _: 0.0
    return grid, meter


def test_a_late_reply_is_counted_where_it_is_fetched():
    """Client 1 takes 15 s of round 1's 10: both its replies are there at second 15, in round 2.

    All that crossed the wire is what crosses it if nobody is late.
    """
    grid, meter = two_rounds({1: 15.0})
    _, in_time = two_rounds({})
    first, second = meter.traffic(1), meter.traffic(2)
    assert (first.total.messages_up, first.total.payload_bytes_up) == (2, 2 * 32)
    assert (second.total.messages_up, second.total.payload_bytes_up) == (4, 4 * 32)
    assert second.by_node[grid.nodes[1]].messages_up == 2
    assert second.by_type["train"].messages_up == 4
    both, expected = Traffic(), Traffic()
    for server_round in (1, 2):
        both.add(meter.traffic(server_round).total)
        expected.add(in_time.traffic(server_round).total)
    assert both == expected


def test_a_late_reply_changes_no_other_figure():
    grid, meter = two_rounds({1: 15.0})
    assert meter.traffic(1).replied == {grid.nodes[0], grid.nodes[2]}
    assert meter.traffic(1).inputs["examples"] == 2 * 20
    assert meter.traffic(2).replied == set(grid.nodes)
    assert meter.traffic(2).inputs["examples"] == 3 * 20


def test_what_comes_between_two_rounds_is_fetched_before_the_next():
    """What comes after the last exchange is not: nobody asks for it."""
    grid = Pulled(3, {1: 15.0})
    meter = MeteredGrid(grid)
    list(meter.send_and_receive(grid.training(1), timeout=10))
    grid.now = 20.0
    assert meter.traffic(1).total.messages_up == 2
    meter.meter.current_round = 2
    assert list(meter.send_and_receive([])) == []
    assert meter.traffic(2).total.messages_up == 1
    assert meter.traffic(2).total.payload_bytes_up == 32
    assert meter.traffic(2).replied == set()


def test_a_late_reply_is_fetched_once_and_no_error_of_the_superlinks_is_counted():
    grid = Pulled(2, {})
    grid.dies = lambda message: message.metadata.dst_node_id == grid.nodes[0]
    meter = MeteredGrid(grid)
    messages = grid.training(1)
    list(meter.send_and_receive(messages, timeout=10))
    grid.now = 60.0
    before = asdict(meter.traffic(1).total)
    for expected in ([messages[0].metadata.message_id], None, None):
        grid.pulled.clear()
        list(meter.send_and_receive([], timeout=10))
        assert grid.pulled[0] == (expected or [])
    assert asdict(meter.traffic(1).total) == before


def test_what_has_expired_is_asked_for_no_more():
    grid = Pulled(2, {0: math.inf, 1: math.inf})
    meter = MeteredGrid(grid)
    messages = grid.training(1)
    messages[0].metadata.ttl = 1e-9
    list(meter.send_and_receive(messages, timeout=10))
    grid.pulled.clear()
    list(meter.send_and_receive([], timeout=10))
    assert grid.pulled[0] == [messages[1].metadata.message_id]


def test_so_many_unanswered_messages_are_remembered_at_most(monkeypatch):
    monkeypatch.setattr(meter_module, "_MOST_UNANSWERED", 2)
    grid = Pulled(3, dict.fromkeys(range(3), math.inf))
    meter = MeteredGrid(grid)
    messages = grid.training(1)
    list(meter.send_and_receive(messages, timeout=10))
    grid.pulled.clear()
    list(meter.send_and_receive([], timeout=10))
    assert grid.pulled[0] == [message.metadata.message_id for message in messages[1:]]
