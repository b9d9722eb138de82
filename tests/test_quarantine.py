"""Who is left out after faults in a row, for how long, and who is not."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from fakes import SilentGrid, arrays_of, configured, model, reply
from flwr.app import ConfigRecord, Error, Message

from flower_ist.quarantine import Quarantine
from flower_ist.strategy import ISTStrategy, TrainingFailedError


def test_three_faults_in_a_row_by_default():
    quarantine = Quarantine()
    for server_round in (1, 2):
        quarantine.note(server_round, good=["a"], faulty=["b"])
        assert not quarantine.holds("b", server_round + 1)
    quarantine.note(3, good=["a"], faulty=["b"])
    assert [quarantine.holds("b", r) for r in (4, 5, 1000)] == [True, True, True]
    assert not quarantine.holds("a", 4)


def test_a_good_reply_sets_the_count_back_and_silence_does_not():
    quarantine = Quarantine(after=2)
    quarantine.note(1, good=[], faulty=["a", "b"])
    quarantine.note(2, good=["a"], faulty=[])  # b is silent
    quarantine.note(3, good=[], faulty=["a", "b"])
    assert not quarantine.holds("a", 4)
    assert quarantine.holds("b", 4)


def test_a_client_comes_back_on_probation():
    """Two rounds out after round 2: back in round 5, and out again with its next fault."""
    quarantine = Quarantine(after=2, rounds=2)
    for server_round in (1, 2):
        quarantine.note(server_round, good=[], faulty=["a"])
    assert [quarantine.holds("a", r) for r in (3, 4, 5)] == [True, True, False]
    quarantine.note(5, good=[], faulty=["a"])
    assert [quarantine.holds("a", r) for r in (6, 7, 8)] == [True, True, False]
    quarantine.note(8, good=["a"], faulty=[])
    quarantine.note(9, good=[], faulty=["a"])
    assert not quarantine.holds("a", 10)


def test_zero_is_never():
    quarantine = Quarantine(after=0)
    for server_round in range(1, 50):
        quarantine.note(server_round, good=[], faulty=["a"])
        assert not quarantine.holds("a", server_round + 1)


@pytest.mark.parametrize("rounds", [0, 7])
def test_the_state_comes_back(rounds):
    one = Quarantine(after=2, rounds=rounds)
    for server_round in (1, 2):
        one.note(server_round, good=[], faulty=["a", *["b"] * (server_round == 2)])
    other = Quarantine(after=2, rounds=rounds)
    other.load_state(one.state())
    assert other == one
    assert (other.holds("a", 3), other.holds("b", 3)) == (True, False)


def spoilt(message: Message) -> Message:
    return reply(message, {name: tensor * np.nan for name, tensor in arrays_of(message).items()})


def failed(message: Message) -> Message:
    return Message(Error(2, "RuntimeError: the battery is empty"), reply_to=message)


def play(strategy: ISTStrategy, grid: SilentGrid, rounds: int, answer) -> list[list[int]]:
    """Play rounds in which ``answer(partition, message)`` replies; return who was asked."""
    nodes, asked, record = list(grid.get_node_ids()), [], model()[1]
    for server_round in range(1, rounds + 1):
        messages = list(strategy.configure_train(server_round, record, ConfigRecord(), grid))
        partitions = [nodes.index(message.metadata.dst_node_id) for message in messages]
        asked.append(partitions)
        replies = [answer(p, m) for p, m in zip(partitions, messages, strict=True)]
        strategy.aggregate_train(server_round, [r for r in replies if r is not None])
    return asked


def test_a_run_goes_on_without_a_client_that_sends_nonsense(caplog):
    strategy, *_ = configured(4, quarantine_after=2)

    def answer(partition, message):
        return spoilt(message) if partition == 1 else reply(message, arrays_of(message))

    with caplog.at_level(logging.WARNING, "flwr"):
        asked = play(strategy, SilentGrid(4), 4, answer)
    assert asked == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 3], [0, 2, 3]]
    (name,) = strategy.last_round.quarantined
    assert f"{name} is in quarantine for the rest of the run" in caplog.text
    assert strategy.last_round.refused == {}


@pytest.mark.parametrize("answer", [failed, lambda _: None])
def test_errors_and_silence_lead_to_no_quarantine(answer):
    strategy, *_ = configured(3, quarantine_after=1)
    asked = play(
        strategy,
        SilentGrid(3),
        4,
        lambda p, m: answer(m) if p == 1 else reply(m, arrays_of(m)),
    )
    assert asked == [[0, 1, 2]] * 4
    assert strategy.last_round.faulty == set()


def test_too_few_that_are_left_end_the_run():
    strategy, *_ = configured(2, quarantine_after=1, quarantine_rounds=1)
    with pytest.raises(TrainingFailedError, match="Round 1: 0 of 2 replies were good"):
        play(strategy, SilentGrid(2), 1, lambda _, m: spoilt(m))
    with pytest.raises(TrainingFailedError, match="0 of 2 clients are not in quarantine, but min_"):
        strategy.configure_train(2, model()[1], ConfigRecord(), SilentGrid(2))
    assert strategy.configure_train(3, model()[1], ConfigRecord(), SilentGrid(2))


def test_quarantine_outlives_a_resume():
    strategy, *_ = configured(3, quarantine_after=1)
    play(
        strategy,
        SilentGrid(3),
        1,
        lambda p, m: spoilt(m) if p == 2 else reply(m, arrays_of(m)),
    )
    resumed, *_ = configured(3)
    resumed.load_state(strategy.state())
    messages = list(resumed.configure_train(2, model()[1], ConfigRecord(), SilentGrid(3)))
    assert len(messages) == 2
