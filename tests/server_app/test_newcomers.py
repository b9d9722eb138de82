"""Clients that join a run late: they are asked for their statistics, and counted in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, MetricRecord, RecordDict
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.wire.protocol import STATISTICS_QUERY
from server_app.app import app as server_app
from server_app.newcomers import Newcomers
from server_app.statistics_file import STATISTICS_FILE
from tests.fakes.changing import asked, star_accuracy
from tests.fakes.shards import replace_array, write_blobs

MakeConfig = Callable[..., dict[str, Any]]

# As in test_warm_start.py, where they are derived: the most, as they are compressed.
HEAD_BYTES = 36 * 2 + 3 * 4
PRIOR_BYTES = 29 * 4 + (36 + 12) * 2 + 144 + HEAD_BYTES + 1
STATISTICS_BYTES = 3 * 8 + 36 * 2 + 24 * 4 + 78 * 2 + 1
NODE_UNAVAILABLE = 5  # Flower's code


class LateGrid(InProcessGrid):
    """A grid whose clients connect, and may go, in rounds of their own.

    Attributes:
        arrives: partition -> the round in which it is there for the first time; 0 if not named.
        loses: partitions whose node is found to be gone when they are first asked for statistics.
        lies: partitions that count one example too many in their statistics.
        stop_in: the round in which the server is stopped; 0 for none.
    """

    arrives: Mapping[int, int] = {}
    loses: frozenset[int] = frozenset()
    lies: frozenset[int] = frozenset()
    stop_in = 0
    seen = 0

    def get_node_ids(self) -> Iterable[int]:
        """A round begins when its node ids are asked for: the one after the last that was sent."""
        nodes = enumerate(super().get_node_ids())
        return [node for k, node in nodes if self.arrives.get(k, 0) <= self.seen + 1]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            config = message.content.config_records.get("config", {})
            self.seen = int(config.get("server-round", self.seen))
        if self.seen == self.stop_in > 0:
            raise ConnectionError("the power is gone")
        sent = super().push_messages(messages)
        for message in messages:
            partition = list(self._contexts).index(message.metadata.dst_node_id)
            reply = self._replies[message.metadata.message_id]
            if message.metadata.message_type != STATISTICS_QUERY:
                continue
            if partition in self.loses:
                self.loses = self.loses - {partition}
                gone = Message(Error(code=NODE_UNAVAILABLE, reason="gone"), reply_to=message)
                self._replies[message.metadata.message_id] = gone
            elif partition in self.lies:
                lie = {**reply.content.metric_records["metrics"], "num-examples": 10**6}
                reply.content = RecordDict({**reply.content, "metrics": MetricRecord(lie)})
        return sent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clients of 60 examples without any 'star', a third with nothing else, and a test set."""
    for k in range(2):
        write_blobs(tmp_path / "data", f"client-{k}", 60, seed=k, shares=(0.5, 0.5, 0.0))
    write_blobs(tmp_path / "data", "client-2", 60, seed=2, shares=(0.0, 0.0, 1.0))
    write_blobs(tmp_path / "data", "test", 300, seed=1000)
    return tmp_path / "data"


@pytest.fixture
def small(warm_config: MakeConfig, folder: Path) -> MakeConfig:
    options = {"data_dir": str(folder), "num_rounds": 5}
    return lambda **changes: warm_config(**{**options, **changes})


def serve(
    config: dict[str, Any], clients: int = 3, nodes: list[Any] | None = None, **grid: Any
) -> Path:
    """Run the app over a grid with these attributes; return the run's folder."""
    late = LateGrid(client_app, clients, config, nodes)
    for name, value in grid.items():
        setattr(late, name, value)
    server_app(late, Context(1, 1, {}, RecordDict(), config))
    return Path(config["output-dir"])


def counted(run: Path) -> int:
    return int(load_file(run / STATISTICS_FILE)["counts"].sum())


def test_who_comes_later_is_counted_in(small: MakeConfig, folder: Path):
    """As if it had been there from the start; only the scale stays that of the first two."""
    from_start = load_file(serve(small()) / STATISTICS_FILE)
    first_two = load_file(serve(small(num_rounds=1), clients=2) / STATISTICS_FILE)
    run = serve(small(), arrives={2: 3})
    found = load_file(run / STATISTICS_FILE)
    for name in ("counts", "sums", "gram"):
        np.testing.assert_allclose(found[name], from_start[name], rtol=1e-12)
    for name in ("mean", "spread"):
        np.testing.assert_array_equal(found[name], first_two[name])
        assert not np.array_equal(found[name], from_start[name])
    assert asked(run) == {3: 1}
    lines = read_run(run)
    query = lines[3]["message_types"][STATISTICS_QUERY]
    assert query["messages_down"] == 1
    answer = lines[4]["message_types"][STATISTICS_QUERY]  # fetched when round 4 begins
    assert answer["messages_up"] == 1
    assert STATISTICS_BYTES / 2 < answer["payload_bytes_up"] <= STATISTICS_BYTES
    assert [line["clients_selected"] for line in lines] == [2, 2, 2, 3, 3, 3]
    assert sum(line["clients_failed"] for line in lines) == 0
    # It knows the first prior in round 3, and all three get the renewed one in round 4.
    trained = [line["message_types"]["train"]["payload_bytes_down"] for line in lines]
    assert PRIOR_BYTES / 2 < trained[3] - trained[5] <= PRIOR_BYTES
    assert 1.5 * PRIOR_BYTES < trained[4] - trained[5] <= 3 * PRIOR_BYTES
    assert (trained[4] - trained[5]) % 3 == 0
    assert star_accuracy(run, folder) > 0.8


def test_a_class_that_came_late_is_not_learnt_without(small: MakeConfig, folder: Path, monkeypatch):
    monkeypatch.setattr(Newcomers, "_ask", lambda *_: None)
    assert star_accuracy(serve(small(), arrives={2: 3}), folder) < 0.2


@pytest.mark.parametrize(
    ("options", "prior_bytes", "priors"),
    [
        # The newcomer gets the first one, and then everybody the renewed one.
        ({"standardize": False}, PRIOR_BYTES, 4),
        ({"lda_skip": False}, PRIOR_BYTES - HEAD_BYTES, 4),
        # FedAvg asks for the node ids twice a round, so that the answer is there when it sends.
        ({"strategy": "fedavg", "wire_dtype": "int8"}, PRIOR_BYTES, 3),
        # A mean and a spread of 12 numbers each travel in any case.
        ({"standardize": False, "replay": False}, 24 * 4 + HEAD_BYTES + 1, 4),
    ],
)
def test_each_part_of_the_warm_start_can_be_renewed(
    small: MakeConfig, options: dict[str, Any], prior_bytes: int, priors: int
):
    run = serve(small(**options), arrives={2: 2})
    assert counted(run) == 180
    lines = read_run(run)
    assert sum(line["clients_failed"] for line in lines) == 0
    down = [line["message_types"]["train"]["payload_bytes_down"] for line in lines]
    # The first one and the renewed one are compressed to different sizes.
    found = down[2] + down[3] - 2 * down[4]
    assert (priors - 1) * prior_bytes / 2 < found <= priors * prior_bytes


def test_the_scale_alone_is_not_sent_again(small: MakeConfig):
    """Mean and spread stay: at most 24 numbers of 4 bytes and one, for the newcomer only."""
    run = serve(small(replay=False, lda_skip=False), arrives={2: 2})
    assert counted(run) == 180
    down = [line["message_types"]["train"]["payload_bytes_down"] for line in read_run(run)]
    assert 24 * 3 < down[2] - down[4] <= 24 * 4 + 1
    assert down[3] == down[4]


def test_answers_wait_until_they_are_worth_a_prior(blob_config: MakeConfig, tmp_path: Path):
    """Of 2 x 60 examples 12 are a tenth: 8 wait in round 3, and 8 + 8 are counted in round 4."""
    for k, count in enumerate([60, 60, 8, 8]):
        write_blobs(tmp_path / "data", f"client-{k}", count, seed=k)
    write_blobs(tmp_path / "data", "test", 30, seed=9)
    options = {"data_dir": str(tmp_path / "data"), "standardize": True, "replay": True}
    arrives = {2: 2, 3: 3}

    def run(rounds: int) -> Path:
        return serve(blob_config(**options, num_rounds=rounds), 4, arrives=arrives)

    assert [counted(run(rounds)) for rounds in (3, 4)] == [120, 136]
    assert asked(run(5)) == {2: 1, 3: 1}


def test_a_client_that_was_silent_at_first_is_asked_again(small: MakeConfig, monkeypatch):
    send = LateGrid.send_and_receive

    def lossy(grid: LateGrid, messages: Iterable[Message], *, timeout: float | None = None) -> Any:
        """Lose the second client's answer to the first question for statistics."""
        messages = list(messages)
        replies = list(send(grid, messages, timeout=timeout))
        is_first = grid.seen == 0 and messages[0].metadata.message_type == "train"
        return replies[:1] + replies[2:] if is_first else replies

    monkeypatch.setattr(LateGrid, "send_and_receive", lossy)
    run = serve(small(num_rounds=2))
    assert read_run(run)[0]["failures"] == {"client-1": "no reply came in time"}
    assert (asked(run), counted(run)) == ({1: 1}, 180)


def test_a_node_that_was_gone_is_asked_again_when_it_is_back(small: MakeConfig):
    run = serve(small(), arrives={2: 2}, loses=frozenset({2}))
    assert (asked(run), counted(run)) == ({2: 1, 3: 1}, 180)


@pytest.mark.parametrize("fault", ["lie", "private"])
def test_who_is_refused_is_named_once(small: MakeConfig, folder: Path, caplog, fault: str):
    nodes: list[Any] = [{"data-path": str(folder / f"client-{k}")} for k in range(3)]
    if fault == "private":
        nodes[2] |= {"privacy-clip": 1.0, "privacy-noise": 0.01}
    lies = {2} if fault == "lie" else set()
    run = serve(small(), nodes=nodes, arrives={2: 2}, lies=frozenset(lies))
    warnings = [r.getMessage() for r in caplog.records if "has no part in the st" in r.getMessage()]
    assert len(warnings) == 1
    reason = "is 1000000, not between" if fault == "lie" else "PrivacyError: This client's data are"
    assert warnings[0].startswith("client-2 joined late and has no part in the statistics")
    assert reason in warnings[0]
    assert (asked(run), counted(run)) == ({2: 1}, 120)
    assert read_run(run)[-1]["clients_replied"] == 3


def test_statistics_that_no_prior_follows_from_change_nothing(
    small: MakeConfig, folder: Path, caplog
):
    """Tokens of 9,999 beside a spread of about 1 do not fit into a class mean in float16."""
    constant = np.load(folder / "client-0" / "tokens.npy")[:, 5].astype(np.float32)
    spread = np.full_like(constant, 0.01) * np.resize([-1, 1], len(constant))
    for k in range(2):
        tokens = np.load(folder / f"client-{k}" / "tokens.npy")
        tokens[:, 5] = spread
        replace_array(folder / f"client-{k}", "tokens", tokens)
    tokens = np.load(folder / "client-2" / "tokens.npy")
    tokens[:, 5] = 9_999
    replace_array(folder / "client-2", "tokens", tokens)
    run = serve(small(lda_skip=False), arrives={2: 2})
    assert counted(run) == 120
    refusals = [r.getMessage() for r in caplog.records if "are not counted in" in r.getMessage()]
    assert len(refusals) == 1
    assert refusals[0].startswith("The statistics of client-2 are not counted in: The statistics")
    assert len(read_run(run)) == 6


@pytest.mark.parametrize("stop_in", [3, 4])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(small: MakeConfig, stop_in: int):
    """It is killed after the newcomer was counted in, and asks nobody again."""
    expected = serve(small(num_rounds=4), arrives={2: 2})
    config = small(num_rounds=4)
    with pytest.raises(ConnectionError):
        serve(config, arrives={2: 2}, stop_in=stop_in)
    assert counted(Path(config["output-dir"])) == 180
    run_in_process(server_app, client_app, 3, {**config, "resume": True})
    found = Path(config["output-dir"])
    model = "model.safetensors"
    assert {n: w.tobytes() for n, w in load_file(found / model).items()} == {
        n: w.tobytes() for n, w in load_file(expected / model).items()
    }
    assert (found / STATISTICS_FILE).read_bytes() == (expected / STATISTICS_FILE).read_bytes()
    assert [line["loss"] for line in read_run(found)] == [
        line["loss"] for line in read_run(expected)
    ]
    assert asked(found) == {2: 1}


def test_without_a_warm_start_nobody_is_asked(small: MakeConfig):
    run = serve(small(standardize=False, replay=False, lda_skip=False), arrives={2: 2})
    assert asked(run) == {}
    assert not (run / STATISTICS_FILE).exists()


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_a_client_that_restarts_under_its_name_is_no_newcomer(
    small: MakeConfig, folder: Path, overlap: int
):
    """Its second node comes in round 3; the first one is found to be gone some rounds later."""
    nodes: list[Any] = [{"data-path": str(folder / f"client-{k}")} for k in (0, 1, 2, 2)]

    class Restarted(LateGrid):
        def get_node_ids(self) -> Iterable[int]:
            *there, old, new = super().get_node_ids()
            both = [old] * (self.seen < 2 + overlap) + [new] * (self.seen >= 2)
            return [*there, *both]

    config = small()
    grid = Restarted(client_app, 4, config, nodes)
    server_app(grid, Context(1, 1, {}, RecordDict(), config))
    assert asked(Path(config["output-dir"])) == {}
    assert counted(Path(config["output-dir"])) == 180


def test_a_newcomer_that_restarts_is_counted_once(small: MakeConfig, folder: Path):
    """Both of its nodes are asked, in rounds 2 and 3; what the first said is counted by then."""
    nodes: list[Any] = [{"data-path": str(folder / f"client-{k}")} for k in (0, 1, 2, 2)]
    run = serve(small(), 4, nodes, arrives={2: 2, 3: 3})
    assert counted(run) == 180
    both = serve(small(), 4, nodes, arrives={2: 2, 3: 2})
    assert (asked(both), counted(both)) == ({2: 2}, 180)


def test_one_with_unusable_statistics_does_not_take_others_along(
    small: MakeConfig, folder: Path, caplog
):
    """They wait together. Tokens of 9,999 beside a spread of 0.01 do not fit into float16."""
    for k in range(2):
        tokens = np.load(folder / f"client-{k}" / "tokens.npy")
        tokens[:, 5] = np.resize([-0.01, 0.01], len(tokens))
        replace_array(folder / f"client-{k}", "tokens", tokens)
    outlier = write_blobs(folder, "client-3", 60, seed=3)
    tokens = np.load(outlier / "tokens.npy")
    tokens[:, 5] = 9_999
    replace_array(outlier, "tokens", tokens)
    plain = np.load(folder / "client-2" / "tokens.npy")
    plain[:, 5] = 0.01
    replace_array(folder / "client-2", "tokens", plain)
    run = serve(small(lda_skip=False), 4, arrives={2: 2, 3: 2})
    assert counted(run) == 180
    refused = [r.getMessage() for r in caplog.records if "are not counted in" in r.getMessage()]
    assert len(refused) == 1
    assert refused[0].startswith("The statistics of client-3 are not counted in")


def test_nobody_is_asked_in_the_last_round(small: MakeConfig):
    """The answer would be fetched in the next one."""
    run = serve(small(num_rounds=3), arrives={2: 3})
    assert (asked(run), counted(run)) == ({}, 120)
    assert read_run(run)[-1]["clients_replied"] == 3
