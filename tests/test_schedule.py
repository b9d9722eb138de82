"""Schedules over the rounds, by hand, and the strategy wrapper that hands them out."""

from __future__ import annotations

import pytest
from fakes import AXES, DIMS, SilentGrid, arrays_of, model
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedProx, Result
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.partition import PartitionError
from flower_ist.resume import ResumedStrategy
from flower_ist.schedule import cosine, stretch
from flower_ist.scheduled_strategy import ScheduledStrategy
from flower_ist.strategy import SubmodelStrategy


def test_half_a_cosine_by_hand():
    """Five rounds are angles 0, 45, 90, 135, 180 degrees: (1 + cos) / 2 = 1, .854, .5, .146, 0."""
    rates = [cosine(r, 5, 1.1, 0.1) for r in range(1, 6)]
    assert rates == pytest.approx([1.1, 0.1 + 0.8535534, 0.6, 0.1 + 0.1464466, 0.1])
    assert (rates[0], rates[-1]) == (1.1, 0.1)
    assert cosine(1, 1, 1.1, 0.1) == 1.1


@pytest.mark.parametrize(
    ("num_rounds", "values", "expected"),
    [
        (6, [8, 4, 2], [8, 8, 4, 4, 2, 2]),
        (10, [480, 160, 40], [480] * 4 + [160] * 3 + [40] * 3),
        (3, [5], [5, 5, 5]),
        (3, [1, 2, 3], [1, 2, 3]),
    ],
)
def test_stretches_by_hand(num_rounds, values, expected):
    assert [stretch(r, num_rounds, values) for r in range(1, num_rounds + 1)] == expected


@given(st.integers(1, 60), st.data())
def test_stretches_are_in_turn_and_equal_up_to_a_round(num_rounds, data):
    count = data.draw(st.integers(1, num_rounds))
    found = [stretch(r, num_rounds, range(count)) for r in range(1, num_rounds + 1)]
    lengths = [found.count(value) for value in range(count)]
    assert found == sorted(found)
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 1


@pytest.mark.parametrize("server_round", [0, 4])
def test_rounds_that_are_not_of_the_run_are_refused(server_round):
    for schedule in (
        lambda: cosine(server_round, 3, 1.0, 0.5),
        lambda: stretch(server_round, 3, [1]),
    ):
        with pytest.raises(ValueError, match=rf"^There is no round {server_round} in a run of 3 "):
            schedule()


@pytest.mark.parametrize("values", [[], [1, 2, 3]])
def test_stretches_that_no_round_is_left_for_are_refused(values):
    with pytest.raises(ValueError, match=rf"^2 rounds cannot be divided into {len(values)} "):
        stretch(1, 2, values)


def configs(messages: list[Message]) -> list[dict[str, object]]:
    return [dict(message.content.config_records["config"]) for message in messages]


def test_a_strategy_of_flowers_own_sends_the_rounds_values():
    config = ConfigRecord({"learning-rate": 0.5, "batch-size": 4})
    strategy = ScheduledStrategy(FedProx(proximal_mu=0.25), lambda r: {"learning-rate": 0.5 / r})
    for server_round, rate in ((1, 0.5), (2, 0.25)):
        messages = strategy.configure_train(server_round, model()[1], config, SilentGrid(2))
        sent = {"batch-size": 4, "proximal-mu": 0.25}
        sent |= {"learning-rate": rate, "server-round": server_round}
        assert configs(list(messages)) == [sent, sent]
    assert dict(config) == {"learning-rate": 0.5, "batch-size": 4}


def test_a_resumed_strategy_gets_the_whole_runs_round():
    inner = ScheduledStrategy(FedAvg(), lambda server_round: {"local-steps": 100 * server_round})
    messages = ResumedStrategy(inner, 3).configure_train(
        1, model()[1], ConfigRecord(), SilentGrid(2)
    )
    assert configs(list(messages)) == [{"local-steps": 400, "server-round": 4}] * 2


def test_all_else_is_the_strategys_own(caplog):
    inner = FedAvg()
    strategy = ScheduledStrategy(inner, lambda _: {})
    assert strategy.aggregate_train(1, []) == inner.aggregate_train(1, [])
    assert strategy.aggregate_evaluate(1, []) == inner.aggregate_evaluate(1, [])
    asked = strategy.configure_evaluate(1, model()[1], ConfigRecord(), SilentGrid(2))
    assert [message.metadata.message_type for message in asked] == ["evaluate"] * 2
    with caplog.at_level("INFO", "flwr"):
        strategy.summary()
    assert "FedAvg, with settings by round" in caplog.text
    assert "Fraction: train" in caplog.text


def test_a_loop_of_its_own_is_refused():
    class Loop(FedAvg):
        def start(self, grid: Grid, initial_arrays: ArrayRecord, *_, **__) -> Result:
            return Result()

    with pytest.raises(ValueError, match=r"^Loop has a loop of its own, so it cannot follow a sch"):
        ScheduledStrategy(Loop(), lambda _: {})


def test_slices_grow_by_round():
    """Of 8 neurons, in 4 slices each has 2, in 2 slices each has 4, and one slice has all 8."""
    strategy = SubmodelStrategy(
        AXES,
        num_slices=lambda r: {1: 4, 2: 2, 3: 1}[r],
        min_train_nodes=1,
        min_available_nodes=1,
        packed=False,
    )
    assert strategy.num_slices == 4
    for server_round, rows in ((1, 2), (2, 4), (3, DIMS[1])):
        messages = strategy.configure_train(server_round, model()[1], ConfigRecord(), SilentGrid(2))
        firsts = [next(iter(arrays_of(message).values())) for message in messages]
        assert [first.shape for first in firsts] == [(rows, DIMS[0])] * 2


@pytest.mark.parametrize("options", [{"shares": [1, 2]}, {"member": "ist-fixed"}])
def test_slices_by_round_that_make_no_sense_are_refused(options):
    with pytest.raises(PartitionError, match="only where slices are drawn anew and of equal size"):
        SubmodelStrategy(AXES, num_slices=lambda _: 2, **options)


def test_too_many_slices_are_refused_in_their_round():
    strategy = SubmodelStrategy(
        AXES, num_slices=lambda r: 6 * r, min_train_nodes=1, min_available_nodes=1
    )
    with pytest.raises(PartitionError, match="cannot be divided into 12 slices"):
        strategy.configure_train(2, model()[1], ConfigRecord(), SilentGrid(2))
