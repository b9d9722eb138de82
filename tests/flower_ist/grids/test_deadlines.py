"""Late replies: dropped, never worked on twice, and not waited for where a slice is back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from safetensors.numpy import load_file

from client_app.app import app as real_client
from flower_ist.grids import deadlines as stragglers
from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.deadlines import Deadlines
from flower_ist.grids.metered import MeteredGrid
from flower_ist.runs.log import read_run
from server_app.app import app as server
from server_app.statistics_file import STATISTICS_FILE
from tests.fakes.faulty import FaultyGrid, GridClock
from tests.fakes.tiny import model, tiny_app

MakeConfig = Callable[..., dict[str, Any]]
# Of 12 dimensions and 3 classes, at most, as they are compressed: mean, spread, shares and two
# steps in 4 bytes, class means and deviations in 2, a factor of 12 x 12 in 1, a head.
PRIOR_BYTES = (12 + 12 + 3 + 2) * 4 + (36 + 12) * 2 + 144 + 36 * 2 + 3 * 4 + 1


def training(
    grid: FaultyGrid, server_round: int = 1, pieces: tuple[int, ...] = (0, 0, 0)
) -> list[Message]:
    """Return a message a node; nodes of one piece get the same arrays."""
    arrays = model()
    messages = []
    for node, piece in zip(grid.get_node_ids(), pieces, strict=True):
        part = ArrayRecord({f"piece-{piece}": arrays["w"]})
        config = ConfigRecord({"server-round": server_round})
        content = RecordDict({"arrays": part, "config": config})
        messages.append(Message(content, node, "train"))
    return messages


def slow(seconds: dict[int, float]) -> Callable[[Message], float]:
    return lambda message: seconds.get(message.metadata.dst_node_id, 0.0)


def closing(
    monkeypatch: pytest.MonkeyPatch,
    num_clients: int,
    delays: dict[int, float],
    min_replies: int = 1,
) -> tuple[FaultyGrid, FilteredGrid]:
    """Return a grid whose clients, by position, take so many seconds, and one that closes early."""
    faulty = FaultyGrid(tiny_app(), num_clients)
    faulty.delay = slow({faulty.nodes[k]: seconds for k, seconds in delays.items()})
    monkeypatch.setattr(stragglers, "time", GridClock(faulty))
    return faulty, FilteredGrid(faulty, [Deadlines(close_early=True, min_replies=min_replies)])


def who(replies: object, grid: FaultyGrid) -> list[int]:
    return sorted(grid.nodes.index(reply.metadata.src_node_id) for reply in replies)  # type: ignore[attr-defined]


def test_flower_never_fetches_a_late_reply():
    """The fact that the rule rests on, of the stand-in too: a later call does not bring it."""
    grid = FaultyGrid(tiny_app(), 3)
    grid.delay = slow({grid.nodes[1]: 15.0})
    assert who(grid.send_and_receive(training(grid), timeout=10), grid) == [0, 2]
    assert grid.now == 10
    grid.delay = slow({})
    replies = list(grid.send_and_receive(training(grid, 2), timeout=10))
    assert who(replies, grid) == [0, 1, 2]
    assert len(replies) == 3


def test_who_was_away_is_not_given_the_rounds_that_it_missed():
    """Node 1 is stuck for 1000 s in round 1 and misses rounds 2 to 5, of 100 s each.

    Back at second 1000 it does what is in time, not five rounds that nobody waits for. Without
    deadlines it would do all of them.
    """
    done = {}
    for name, with_deadlines in (("flower", False), ("ours", True)):
        faulty = FaultyGrid(tiny_app(), 3)
        grid = FilteredGrid(faulty, [Deadlines()]) if with_deadlines else faulty
        for server_round in range(1, 13):
            stuck = server_round == 1
            faulty.delay = slow({faulty.nodes[1]: 1000.0} if stuck else {faulty.nodes[0]: 100.0})
            list(grid.send_and_receive(training(faulty, server_round), timeout=100))
        done[name] = [r for node, r in faulty.trained if node == faulty.nodes[1]]
    assert done["flower"] == list(range(1, 13))
    # At second 1000 round 10 has just ended; rounds 10 and 11 are within their 30 s of grace.
    assert done["ours"] == [1, 10, 11, 12]


def test_messages_live_as_long_as_their_round_and_its_grace():
    faulty = FaultyGrid(tiny_app(), 2)
    messages = training(faulty, pieces=(0, 1))
    list(FilteredGrid(faulty, [Deadlines()]).send_and_receive(messages, timeout=100))
    assert [m.metadata.ttl for m in messages] == pytest.approx([130, 130], abs=5)


def test_without_a_timeout_messages_keep_flowers_time_to_live():
    faulty = FaultyGrid(tiny_app(), 2)
    messages = training(faulty, pieces=(0, 1))
    list(FilteredGrid(faulty, [Deadlines()]).send_and_receive(messages))
    assert [m.metadata.ttl for m in messages] == [43200, 43200]


def test_a_round_closes_when_each_slice_is_back(monkeypatch):
    """Slices a a b b: the fast clients of each answer after 2 and 5 s, the others after 60 s."""
    faulty, grid = closing(monkeypatch, 4, {0: 2.0, 1: 60.0, 2: 5.0, 3: 60.0})
    replies = grid.send_and_receive(training(faulty, pieces=(0, 0, 1, 1)), timeout=100)
    assert who(replies, faulty) == [0, 2]
    assert faulty.now == 5


def test_all_replies_that_are_there_are_used(monkeypatch):
    faulty, grid = closing(monkeypatch, 4, {2: 5.0, 3: 60.0})
    replies = grid.send_and_receive(training(faulty, pieces=(0, 0, 1, 1)), timeout=100)
    assert who(replies, faulty) == [0, 1, 2]


def test_a_slice_without_a_spare_is_waited_for(monkeypatch):
    faulty, grid = closing(monkeypatch, 3, {2: 60.0})
    replies = grid.send_and_receive(training(faulty, pieces=(0, 0, 1)), timeout=100)
    assert who(replies, faulty) == [0, 1, 2]
    assert faulty.now == 60


def test_it_does_not_close_with_fewer_than_min_replies(monkeypatch):
    """FedAvg's clients all get one piece: two of them must be back, not one."""
    faulty, grid = closing(monkeypatch, 3, {0: 1.0, 1: 7.0, 2: 60.0}, min_replies=2)
    assert who(grid.send_and_receive(training(faulty), timeout=100), faulty) == [0, 1]
    assert faulty.now == 7


def test_duplicates_count_once(monkeypatch):
    faulty, grid = closing(monkeypatch, 3, {1: 7.0, 2: 60.0}, min_replies=2)
    faulty.copies = lambda _: 2
    assert who(grid.send_and_receive(training(faulty), timeout=100), faulty) == [0, 0, 1, 1]


def test_an_error_does_not_stand_for_a_slice(monkeypatch):
    faulty, grid = closing(monkeypatch, 2, {1: 9.0})
    faulty.dies = lambda message: message.metadata.dst_node_id == faulty.nodes[0]
    replies = list(grid.send_and_receive(training(faulty, pieces=(0, 0)), timeout=100))
    assert [reply.has_error() for reply in replies] == [False]
    assert faulty.now == 9


@pytest.mark.parametrize(("delay", "seconds"), [(math.inf, 20), (8.0, 8)])
def test_it_waits_no_longer_than_the_timeout_or_the_last_reply(monkeypatch, delay, seconds):
    faulty, grid = closing(monkeypatch, 2, {1: delay}, min_replies=2)
    list(grid.send_and_receive(training(faulty, pieces=(0, 1)), timeout=20))
    assert faulty.now == seconds


def test_questions_are_not_closed_early(monkeypatch):
    faulty, grid = closing(monkeypatch, 2, {1: 9.0})
    questions = [Message(RecordDict(), node, "query") for node in faulty.get_node_ids()]
    assert who(grid.send_and_receive(questions, timeout=20), faulty) == [0, 1]
    assert list(grid.send_and_receive([], timeout=20)) == []


def test_late_replies_are_counted_and_nothing_else(monkeypatch):
    """Slices a a b b of 24 bytes; the second client of each is busy until second 60.

    Rounds 1 and 2 close with two replies each. In round 3, which begins at second 60, the four that
    are missing are fetched, and all four clients answer in time: 2 + 2 + 8 of 12.
    """
    faulty, grid = closing(monkeypatch, 4, {0: 2.0, 1: 60.0, 2: 5.0, 3: 60.0})
    meter = MeteredGrid(grid)
    came = []
    for server_round in (1, 2, 3):
        if server_round == 3:
            faulty.now = 60.0
        messages = training(faulty, server_round, (0, 0, 1, 1))
        came.append(who(meter.send_and_receive(messages, timeout=100), faulty))
        faulty.delay = slow({})
    assert came == [[0, 2], [0, 2], [0, 1, 2, 3]]
    totals = [meter.traffic(server_round).total for server_round in (1, 2, 3)]
    assert [total.messages_down for total in totals] == [4, 4, 4]
    assert [total.messages_up for total in totals] == [2, 2, 8]
    assert [total.payload_bytes_up for total in totals] == [2 * 24, 2 * 24, 8 * 24]
    assert [len(meter.traffic(r).replied) for r in (1, 2, 3)] == [2, 2, 4]


@pytest.fixture
def usual(blob_config: MakeConfig) -> dict[str, Any]:
    """The config of two rounds of four clients on two slices, closed early, else as usual."""
    return blob_config(
        close_early=True,
        num_slices=2,
        num_rounds=2,
        min_available_nodes=4,
        standardize=True,
        replay=True,
        lda_skip=True,
        wire_dtype="int8",
    )


def run_with(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], delay: Callable[[int, int], float]
) -> tuple[FaultyGrid, list[dict[str, Any]]]:
    """Run the ServerApp; a client takes ``delay(position, round)`` seconds to train or to sum."""
    grid = FaultyGrid(real_client, 4, config)

    def seconds(message: Message) -> float:
        if message.metadata.message_type != "train":
            return 0.0
        server_round = message.content.config_records["config"]["server-round"]
        return delay(grid.nodes.index(message.metadata.dst_node_id), int(str(server_round)))

    grid.delay = seconds
    monkeypatch.setattr(stragglers, "time", GridClock(grid))
    server(grid, Context(1, 1, {}, RecordDict(), config))
    return grid, read_run(Path(config["output-dir"]))


def test_statistics_are_waited_for(monkeypatch, usual):
    """Clients 2 and 3 take 7 s for theirs: the sums are of all 60 + 61 + 62 + 63 examples."""
    grid, lines = run_with(
        monkeypatch, usual, lambda client, number: 7.0 if client > 1 and not number else 0.0
    )
    assert grid.now == 7
    assert load_file(Path(usual["output-dir"]) / STATISTICS_FILE)["counts"].sum() == 246
    assert lines[0]["failures"] == {}
    assert lines[0]["message_types"]["train"]["messages_up"] == 4


def test_who_gets_the_prior_again_is_not_waited_for(monkeypatch, usual):
    """Client 3 is hung from round 1 on: neither round waits, though it alone lacks the prior."""
    grid, lines = run_with(
        monkeypatch, usual, lambda client, number: math.inf if client == 3 and number else 0.0
    )
    assert grid.now == 0
    assert [line["clients_replied"] for line in lines] == [4, 3, 3]
    down = {k: sent["payload_bytes_down"] for k, sent in lines[2]["clients"].items()}
    others = {down.pop(f"client-{k}") for k in range(3)}
    assert PRIOR_BYTES / 2 < down["client-3"] - others.pop() <= PRIOR_BYTES
    assert others == set()  # the halves of 30 neurons are slices of one size
