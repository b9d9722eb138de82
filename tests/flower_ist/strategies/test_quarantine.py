"""Who is left out after faults in a row, for how long, and who is not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Context, Error, Message, RecordDict

from client_app.app import app as real_client
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.log import read_run
from flower_ist.strategies.quarantine import Quarantine
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.wire._flwr import with_metadata
from flower_ist.wire.protocol import PACKED_KEY, PACKED_STYPE, REFUSED_CODE
from server_app.app import app as server
from tests.fakes.strategies import SilentGrid, arrays_of, configured, model, reply


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


class Spoiling(InProcessGrid):
    """Client 1's answers to messages with a model are what ``spoil`` makes of them."""

    spoil: Callable[[Message], Message]

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        second = list(self.get_node_ids())[1]
        if message.metadata.dst_node_id == second and "arrays" in message.content:
            return self.spoil(reply)
        return reply


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Message], Message]:
    def spoil(answer: Message) -> Message:
        record = answer.content.array_records["arrays"]
        array = record[PACKED_KEY]
        record[PACKED_KEY] = Array(array.dtype, array.shape, array.stype, change(array.data))
        return answer

    return spoil


def with_error(code: int, reason: str) -> Callable[[Message], Message]:
    def spoil(answer: Message) -> Message:
        return with_metadata(Message(Error(code, reason), reply_to=answer), answer.metadata)

    return spoil


cut = with_bytes(lambda data: data[:-1])
# The first number is the first row's scale, a bfloat16, or the first weight, a float32.
no_scale = with_bytes(lambda data: b"\x80\x7f" + data[2:])
no_weight = with_bytes(lambda data: b"\x00\x00\x80\x7f" + data[4:])


@pytest.mark.parametrize(
    ("dtype", "spoil", "reason", "selected"),
    [
        ("float32", cut, "bytes instead of", [4, 4, 4, 3, 3]),
        ("float32", no_weight, "'fc1.weight' holds values that are not", [4, 4, 4, 3, 3]),
        ("int8", cut, "bytes instead of", [4, 4, 4, 3, 3]),
        ("int8", no_scale, "'fc1.weight' holds values that are not", [4, 4, 4, 3, 3]),
        ("int8", with_error(REFUSED_CODE, "Mine."), "mine", [4, 4, 4, 3, 3]),
        ("int8", with_error(2, "boom"), "the client failed: boom", [4] * 5),
        ("int8", with_error(2, PACKED_STYPE), "the client failed: A packed model needs", [4] * 5),
    ],
)
def test_a_wire_dtype_hides_no_fault(blob_config, dtype, spoil, reason, selected):
    """Whole runs of the apps in the usual settings, of five rounds and four clients."""
    config: dict[str, Any] = blob_config(
        num_rounds=5,
        standardize=True,
        replay=True,
        lda_skip=True,
        wire_dtype=dtype,
    )
    grid = Spoiling(real_client, 4, config)
    grid.spoil = spoil
    server(grid, Context(1, 1, {}, RecordDict(), config))
    start, *lines = read_run(Path(config["output-dir"]))
    assert start["failures"] == {}
    assert [line["clients_selected"] for line in lines] == selected
    for line, number in zip(lines, selected, strict=True):
        assert list(line["failures"]) == ["client-1"] * (number == 4)
        assert all(reason in text for text in line["failures"].values())
