"""Clients that fail: the run goes on, the log shows it, untouched weights keep their bits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

from client_app.app import app as real_client
from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.deadlines import Deadlines
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.metered import MeteredGrid
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import RunLog, read_run
from flower_ist.runs.recorder import RoundRecorder
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.partition import partition
from flower_ist.tokens.shard import open_shard
from server_app.app import app as server
from tests.fakes.faulty import GONE, FaultyGrid
from tests.fakes.strategies import LossyGrid

DIMS = [12, 30, 30, 3]
TRAIN = ConfigRecord({"local-steps": 5, "batch-size": 8, "learning-rate": 0.01, "seed": 0})


def client_that_raises(when: Callable[[int, int], bool]) -> ClientApp:
    """Our ClientApp, but training fails where ``when(partition, round)`` says so."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        server_round = message.content.config_records["config"]["server-round"]
        if when(context.node_config["partition-id"], server_round):
            raise RuntimeError("the battery is empty")
        return real_client(message, context)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return real_client(message, context)

    return app


Models = dict[int, dict[str, np.ndarray]]


def run_rounds(
    grid: InProcessGrid, folder: Path, *, num_rounds: int, timeout: float = 30.0, **options: Any
) -> tuple[list[dict[str, Any]], Models, ISTStrategy]:
    """Run a strategy as the ServerApp does; return the log, the model after each round, and it."""
    quorum = {"min_train_nodes": 2, "min_available_nodes": 2, "node_timeout": 0.0}
    strategy = ISTStrategy(mlp_axes(mlp_shapes(DIMS)), **{"seed": 0, **quorum, **options})
    models: Models = {}

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        models[server_round] = {name: array.numpy() for name, array in arrays.items()}
        return MetricRecord({"accuracy": 0.0, "loss": 0.0})

    meter = MeteredGrid(FilteredGrid(grid, [Deadlines()]))
    weights = initial_weights(DIMS, seed=0)
    with RoundRecorder(meter, RunLog(folder), strategy, evaluate, {"seed": 0}) as recorder:
        result = strategy.start(
            grid=meter,
            initial_arrays=ArrayRecord({name: Array(w) for name, w in weights.items()}),
            num_rounds=num_rounds,
            timeout=timeout,
            train_config=TRAIN,
            evaluate_fn=recorder,
        )
    for name, array in result.arrays.items():
        assert array.numpy().tobytes() == models[num_rounds][name].tobytes()
    return read_run(folder), models, strategy


def federate(
    blobs: Path, folder: Path, *, num_rounds: int, min_train_nodes: int = 2
) -> tuple[list[dict[str, Any]], Models, ISTStrategy]:
    """Four clients: 1 raises in every third round, 2 never answers a train message."""
    app = client_that_raises(
        lambda partition, server_round: (partition, server_round % 3) == (1, 0)
    )
    lossy = LossyGrid(app, 4, {"data-dir": str(blobs)})
    silent = list(lossy.get_node_ids())[2]
    lossy.lose = lambda m: m.metadata.message_type == "train" and m.metadata.dst_node_id == silent
    return run_rounds(lossy, folder, num_rounds=num_rounds, min_train_nodes=min_train_nodes)


def faulty_grid(blobs: Path) -> FaultyGrid:
    return FaultyGrid(real_client, 4, {"data-dir": str(blobs)})


def training_of(grid: FaultyGrid, client: int, *rounds: int) -> Callable[[Message], bool]:
    """Return what recognizes the train messages to a client in some rounds."""

    def matches(message: Message) -> bool:
        if message.metadata.message_type != "train":
            return False
        server_round = message.content.config_records["config"]["server-round"]
        return message.metadata.dst_node_id == grid.nodes[client] and server_round in rounds

    return matches


def check_rests(line: dict[str, Any], models: Models, rests: int, num_slices: int = 4) -> None:
    """Check that the neurons of as many slices keep their bits in a round, and all others change.

    A neuron of h1 is row i of fc1 and column i of fc2; one of h2 is row j of fc2 and column j of
    fc3. What joins two neurons that rest is theirs as well.
    """
    before, after = models[line["round"] - 1], models[line["round"]]
    slices = partition(0, line["round"], mlp_axes(mlp_shapes(DIMS)).widths, num_slices)
    untouched = [
        part
        for part in slices
        if (before["fc1.bias"][part["h1"]] == after["fc1.bias"][part["h1"]]).all()
    ]
    assert len(untouched) == rests
    for part in untouched:
        one, two = part["h1"], part["h2"]
        for name in ("fc1.weight", "fc1.bias"):
            assert before[name][one].tobytes() == after[name][one].tobytes()
        assert before["fc2.bias"][two].tobytes() == after["fc2.bias"][two].tobytes()
        for name, at in (
            ("fc2.weight", (slice(None), one)),
            ("fc2.weight", (two, slice(None))),
            ("fc3.weight", (slice(None), two)),
        ):
            assert before[name][at].tobytes() == after[name][at].tobytes()
    for part in slices:
        if not any(part is other for other in untouched):
            changed = before["fc1.weight"][part["h1"]] != after["fc1.weight"][part["h1"]]
            assert changed.any(axis=1).all()


def test_a_client_killed_in_training(blobs: Path, tmp_path: Path) -> None:
    """It dies of round 2; rounds 3 and 4 go on with the other three, on three slices."""
    grid = faulty_grid(blobs)
    grid.dies = training_of(grid, 1, 2)
    rounds, models, _ = run_rounds(grid, tmp_path, num_rounds=4, timeout=90.0)
    assert [line["clients_selected"] for line in rounds] == [0, 4, 4, 3, 3]
    assert [line["clients_replied"] for line in rounds] == [0, 4, 3, 3, 3]
    failure = f"the client failed: {GONE}"
    assert [line["failures"] for line in rounds] == [{}, {}, {"client-1": failure}, {}, {}]
    check_rests(rounds[2], models, 1)
    check_rests(rounds[3], models, 0, num_slices=3)
    # Its message went down; nothing came up, though the SuperLink answered in its stead.
    traffic = rounds[2]["clients"]
    assert set(traffic) == {"client-0", "client-1", "client-2", "client-3"}
    assert traffic["client-1"]["wire_bytes_down"] > 0 == traffic["client-1"]["wire_bytes_up"]


def test_a_client_that_answers_after_the_timeout(blobs: Path, tmp_path: Path) -> None:
    """40 s in a round of 30: round 2 closes without it, and its late answer is in no model.

    In round 3 it answers in time, which is what a run without client 1 in round 2 brings.
    """
    late, lost = faulty_grid(blobs), faulty_grid(blobs)
    slow = training_of(late, 1, 2)
    late.delay = lambda message: 40.0 if slow(message) else 1.0
    never = training_of(lost, 1, 2)
    lost.delay = lambda message: math.inf if never(message) else 1.0
    rounds, models, _ = run_rounds(late, tmp_path / "late", num_rounds=3)
    assert [line["failures"] for line in rounds] == [
        {},
        {},
        {"client-1": "no reply came in time"},
        {},
    ]
    assert [line["clients_replied"] for line in rounds] == [0, 4, 3, 4]
    check_rests(rounds[2], models, 1)
    check_rests(rounds[3], models, 0)
    _, without, _ = run_rounds(lost, tmp_path / "lost", num_rounds=2)
    for name, weight in without[2].items():
        assert weight.tobytes() == models[2][name].tobytes()


def test_a_client_that_never_answers(blobs: Path, tmp_path: Path) -> None:
    grid = faulty_grid(blobs)
    silent = training_of(grid, 3, 1, 2, 3)
    grid.delay = lambda message: math.inf if silent(message) else 1.0
    rounds, models, _ = run_rounds(grid, tmp_path, num_rounds=3)
    for line in rounds[1:]:
        assert line["failures"] == {"client-3": "no reply came in time"}
        assert (line["clients_selected"], line["clients_replied"]) == (4, 3)
        check_rests(line, models, 1)
    assert grid.now == 3 * 30 + 1  # three full rounds and a question


def test_a_client_that_comes_back_has_its_seat_again(blobs: Path, tmp_path: Path) -> None:
    """Capacities 0.4 0.3 0.2 0.1 by name: client-2 holds 0.2 of 30 neurons before and after."""
    grid = faulty_grid(blobs)
    grid.dies = training_of(grid, 2, 2)
    widths: dict[tuple[int, int], int] = {}

    def delay(message: Message) -> float:
        if message.metadata.message_type == "train":
            config = message.content.config_records["config"]
            arrays = message.content.array_records["arrays"]
            node = message.metadata.dst_node_id
            widths[node, int(config["server-round"])] = len(arrays["fc1.bias"].numpy())
            if config["server-round"] == 3 and grid.nodes[2] in grid.gone:
                grid.back = grid.back or grid.restart(grid.nodes[2])
        return 1.0

    grid.back, grid.delay = 0, delay
    rounds, _, _ = run_rounds(
        grid,
        tmp_path,
        num_rounds=5,
        timeout=90.0,
        capacities=[0.4, 0.3, 0.2, 0.1],
    )
    assert [line["clients_replied"] for line in rounds] == [0, 4, 3, 3, 4, 4]
    assert "client-2" not in rounds[3]["clients"]
    assert set(rounds[4]["clients"]) == {f"client-{k}" for k in range(4)}
    assert widths[grid.back, 4] == widths[grid.back, 5] == widths[grid.nodes[2], 1]
    assert len({widths[node, 1] for node in grid.nodes}) == 4
    for k in (0, 1, 3):
        assert {widths[grid.nodes[k], r] for r in (1, 4)} == {widths[grid.nodes[k], 1]}


def test_duplicate_replies(blobs: Path, tmp_path: Path) -> None:
    """Client 0 answers round 2 three times: the first counts, and the model is as with one."""
    once, thrice = faulty_grid(blobs), faulty_grid(blobs)
    again = training_of(thrice, 0, 2)
    thrice.copies = lambda message: 3 if again(message) else 1
    _, expected, _ = run_rounds(once, tmp_path / "once", num_rounds=3)
    rounds, models, _ = run_rounds(thrice, tmp_path / "thrice", num_rounds=3)
    for server_round, model in expected.items():
        for name, weight in model.items():
            assert weight.tobytes() == models[server_round][name].tobytes()
    assert "answered twice" in rounds[2]["failures"]["client-0"]
    assert rounds[3]["failures"] == {}


def test_the_app_leaves_no_half_written_file_behind(
    blob_config: Callable[..., dict[str, Any]], blobs: Path
) -> None:
    """The whole ServerApp: one client dies in the last round, another never answers in it."""
    alone = {"standardize": False, "replay": False, "lda_skip": False}
    config = blob_config(num_rounds=3, min_train_nodes=2, min_available_nodes=4, **alone)
    grid = FaultyGrid(real_client, 4, config)
    grid.dies = training_of(grid, 1, 3)
    silent = training_of(grid, 2, 3)
    grid.delay = lambda message: math.inf if silent(message) else 1.0
    server(grid, Context(1, 1, {}, RecordDict(), config))
    folder = Path(config["output-dir"])
    assert not [file for file in folder.rglob("*") if "tmp" in file.name]
    last = read_run(folder)[-1]
    assert (last["round"], last["clients_replied"]) == (3, 2)
    assert last["failures"].keys() == {"client-1", "client-2"}
    written = evaluate_arrays(load_file(folder / "model.safetensors"), open_shard(blobs / "test"))
    assert written == pytest.approx((last["accuracy"], last["loss"]), rel=1e-6)


def test_a_client_that_always_fails_is_not_asked_at_the_cost_of_others(
    blobs: Path, tmp_path: Path
) -> None:
    """Two of four clients a round: in six rounds each is asked three times, failures or not."""
    broken = client_that_raises(lambda partition, _: partition == 1)
    grid = FaultyGrid(broken, 4, {"data-dir": str(blobs)})
    rounds, _, _ = run_rounds(
        grid, tmp_path, num_rounds=6, fraction_train=0.5, min_train_nodes=1, num_slices=2
    )
    assert sum(line["clients_failed"] for line in rounds) == 3
    assert sorted(Counter(node for node, _ in grid.trained).values()) == [3, 3, 3, 3]


def test_run_goes_on_and_the_log_shows_who_failed(blobs: Path, tmp_path: Path) -> None:
    rounds, _, _ = federate(blobs, tmp_path, num_rounds=6)
    for line in rounds[1:]:
        expected = {"client-2": "no reply came in time"}
        if line["round"] % 3 == 0:
            expected["client-1"] = "the client failed: RuntimeError: the battery is empty"
        assert line["failures"] == expected
        assert line["clients_selected"] == 4
        assert line["clients_replied"] == 4 - len(expected)
        assert line["clients_failed"] == len(expected)


def test_untouched_weights_keep_their_bits(blobs: Path, tmp_path: Path) -> None:
    """Per round, only the rows of slices that came back may differ from the round before."""
    rounds, models, strategy = federate(blobs, tmp_path, num_rounds=3)
    for line in rounds[1:]:
        server_round = line["round"]
        before, after = models[server_round - 1], models[server_round]
        changed = np.flatnonzero((before["fc1.weight"] != after["fc1.weight"]).any(axis=1))
        slices = partition(0, server_round, strategy.axes.widths, 4)
        trained = sum(bool(np.isin(part["h1"], changed).all()) for part in slices)
        untouched = [part["h1"] for part in slices if not np.isin(part["h1"], changed).any()]
        assert trained == line["clients_replied"]
        assert len(untouched) == line["clients_failed"]
        for neurons in untouched:
            for name in ("fc1.weight", "fc1.bias"):
                assert before[name][neurons].tobytes() == after[name][neurons].tobytes()
            columns = before["fc2.weight"][:, neurons]
            assert columns.tobytes() == after["fc2.weight"][:, neurons].tobytes()


def test_too_few_good_replies_end_the_run_with_the_reasons(blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailedError, match=r"Round 3: 2 of 4 .* is 3\..*battery is empty"):
        federate(blobs, tmp_path, num_rounds=6, min_train_nodes=3)
    rounds = read_run(tmp_path)
    assert [line["round"] for line in rounds] == [0, 1, 2, 3]
    assert (rounds[3]["accuracy"], rounds[3]["clients_failed"]) == (None, 2)


@pytest.mark.parametrize("num_slices", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("num_clients", [1, 4, 8])
def test_any_number_of_slices_and_clients(
    blob_config: Callable[..., dict[str, Any]], num_slices: int, num_clients: int
) -> None:
    """H = 30 is divisible by 1, 2, 3 and 5, not by 8; more and fewer clients than slices."""
    config = blob_config(
        num_slices=num_slices, min_train_nodes=1, min_available_nodes=1, num_rounds=2
    )
    run_in_process(server, real_client, num_clients, config)
    last = read_run(Path(config["output-dir"]))[-1]
    assert last["clients_replied"] == num_clients
    assert (last["coverage"] == 1.0) == (num_slices == 1)
