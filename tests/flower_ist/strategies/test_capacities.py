"""Capacities by name, by facts and by measured speed."""

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from flower_ist.grids.clients import Client
from flower_ist.strategies.capacities import ClientCapacities, by_speed
from flower_ist.submodels.partition import PartitionError
from tests.fakes.strategies import SilentGrid, arrays_of, configured, reply

CLIENTS = [Client(1, "a", {"memory-gib": 4}), Client(2, "b", {"memory-gib": 16})]


def metrics(**values):
    record = MetricRecord({key.replace("_", "-"): value for key, value in values.items()})
    return RecordDict({"metrics": record})


def test_by_name():
    assert ClientCapacities({"b": 0.5, "a": 0.1, "c": 1.0}).of(CLIENTS) == [0.1, 0.5]


def test_by_facts():
    capacities = ClientCapacities(lambda client: client["memory-gib"] / 16)
    assert capacities.of(CLIENTS) == [0.25, 1.0]


def test_in_the_order_of_clients_they_are_left_to_the_seats():
    assert ClientCapacities([0.5, 0.25]).of(CLIENTS) is None
    assert ClientCapacities(None).of(CLIENTS) is None


@pytest.mark.parametrize("given", [{"a": 0.5}, {"a": 0.5, "b": 2.0}, lambda client: 0.0])
def test_a_client_without_a_capacity(given):
    with pytest.raises(PartitionError, match=r"capacity of client '[ab]' is"):
        ClientCapacities(given).of(CLIENTS)


def test_the_next_share_follows_the_measured_speed():
    """a takes 0.08 s a step of a quarter and gets an eighth; b takes 0.015 s and gets a third."""
    capacities = ClientCapacities(by_speed(0.02))
    assert capacities.of(CLIENTS) == [0.25, 0.25]
    capacities.note({"a": metrics(seconds_per_step=0.08), "b": metrics(seconds_per_step=0.015)})
    assert capacities.of(CLIENTS) == [0.125, pytest.approx(1 / 3)]
    resumed = ClientCapacities(by_speed(0.02))
    resumed.load_state(capacities.state())
    assert resumed.of(CLIENTS) == capacities.of(CLIENTS)


def test_a_strategy_cuts_as_much_as_the_function_says():
    """Half of 8 neurons to each of two clients at first, and a quarter after the reply."""
    strategy, _, messages = configured(
        capacities=lambda client: 0.25 if client.get("loss") == 3.0 else 0.5
    )
    assert [len(arrays_of(m)["fc1.bias"]) for m in messages] == [4, 4]
    replies = [reply(m, arrays_of(m), {"loss": 3.0}) for m in messages]
    merged, _ = strategy.aggregate_train(1, replies)
    assert set(strategy.state()["reported"]) == {c.name for c in strategy.registry._known.values()}

    messages = list(strategy.configure_train(2, merged, ConfigRecord({}), SilentGrid(2)))
    assert [len(arrays_of(m)["fc1.bias"]) for m in messages] == [2, 2]
