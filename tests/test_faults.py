"""Clients that fail: the run goes on, the log shows it, untouched weights keep their bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import LossyGrid
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp

from client_app.app import app as real_client
from flower_ist.axes import mlp_axes
from flower_ist.inprocess import run_in_process
from flower_ist.meter import MeteredGrid
from flower_ist.model import initial_weights, mlp_shapes
from flower_ist.partition import partition
from flower_ist.recorder import RoundRecorder
from flower_ist.runlog import RunLog, read_run
from flower_ist.strategy import ISTStrategy, TrainingFailedError
from server_app.app import app as server

DIMS = [12, 30, 30, 3]
TRAIN = ConfigRecord({"local-steps": 5, "batch-size": 8, "learning-rate": 0.01, "seed": 0})


def client_that_raises_every_third_round() -> ClientApp:
    """Our ClientApp, but the client of partition 1 fails in rounds 3, 6, ..."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        server_round = message.content.config_records["config"]["server-round"]
        if context.node_config["partition-id"] == 1 and server_round % 3 == 0:
            raise RuntimeError("the battery is empty")
        return real_client(message, context)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return real_client(message, context)

    return app


def federate(
    blobs: Path, folder: Path, *, num_rounds: int, min_train_nodes: int = 2
) -> tuple[list[dict[str, Any]], dict[int, dict[str, np.ndarray]], ISTStrategy]:
    """Four clients: 1 raises in every third round, 2 never answers a train message."""
    lossy = LossyGrid(client_that_raises_every_third_round(), 4, {"data-dir": str(blobs)})
    silent = list(lossy.get_node_ids())[2]
    lossy.lose = lambda m: m.metadata.message_type == "train" and m.metadata.dst_node_id == silent
    strategy = ISTStrategy(
        mlp_axes(mlp_shapes(DIMS)),
        seed=0,
        min_train_nodes=min_train_nodes,
        min_available_nodes=4,
        node_timeout=0.0,
    )
    models: dict[int, dict[str, np.ndarray]] = {}

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        models[server_round] = {name: array.numpy() for name, array in arrays.items()}
        return MetricRecord({"accuracy": 0.0, "loss": 0.0})

    meter = MeteredGrid(lossy)
    weights = initial_weights(DIMS, seed=0)
    with RoundRecorder(meter, RunLog(folder), strategy, evaluate, {"seed": 0}) as recorder:
        strategy.start(
            grid=meter,
            initial_arrays=ArrayRecord({name: Array(w) for name, w in weights.items()}),
            num_rounds=num_rounds,
            train_config=TRAIN,
            evaluate_fn=recorder,
        )
    return read_run(folder), models, strategy


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
