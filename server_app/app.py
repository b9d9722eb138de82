"""The Flower ServerApp: settings -> clients -> strategy -> run log and model."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from flower_ist.axes import mlp_axes
from flower_ist.clients import Client, Roster, await_nodes
from flower_ist.demo_tokens import test_shard
from flower_ist.evaluation import evaluate_arrays
from flower_ist.meter import MeteredGrid
from flower_ist.model import initial_weights, mlp_shapes
from flower_ist.recorder import RoundRecorder
from flower_ist.runlog import RunLog
from flower_ist.strategy import ISTStrategy
from flower_ist.tokens import TokenShard, open_shard, test_folder
from server_app.output import output_folder, write_model, write_settings
from server_app.settings import Settings, SettingsError

app = ServerApp()
_log = logging.getLogger("flwr")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation from settings to model. Whatever is wrong is raised before training."""
    settings = Settings.from_run_config(context.run_config)
    data = settings.data_dir
    shard = open_shard(test_folder(Path(data))) if data else test_shard()
    dims = [
        shard.meta.dim,
        *[settings.hidden_width] * settings.hidden_layers,
        shard.meta.num_classes,
    ]

    meter = MeteredGrid(grid)
    needed = max(settings.min_available_nodes, settings.min_train_nodes)
    node_ids = await_nodes(meter, needed, settings.node_timeout)
    roster = Roster()
    check_clients(roster.meet(meter, node_ids), shard)
    strategy = make_strategy(settings, dims, roster)

    folder = output_folder(settings, context.run_id)
    run_log = RunLog(folder)
    write_settings(folder, settings)
    _log.info("This run is written to %s", folder)

    def evaluate(_: int, arrays: ArrayRecord) -> MetricRecord:
        accuracy, loss = evaluate_arrays(_to_numpy(arrays), shard)
        return MetricRecord({"accuracy": accuracy, "loss": loss})

    weights = initial_weights(dims, settings.seed)
    settings_of_rounds = ConfigRecord(
        {
            "local-steps": settings.local_steps,
            "batch-size": settings.batch_size,
            "learning-rate": settings.learning_rate,
            "seed": settings.seed,
        }
    )
    run = settings.to_run_config()
    with RoundRecorder(meter, run_log, strategy, evaluate, run, roster) as recorder:
        result = strategy.start(
            grid=meter,
            initial_arrays=ArrayRecord({name: Array(array) for name, array in weights.items()}),
            num_rounds=settings.num_rounds,
            timeout=settings.round_timeout,
            train_config=settings_of_rounds,
            evaluate_fn=recorder,
        )
    about = {
        "format": "flower-ist-mlp",
        "dims": dims,
        "class_names": shard.meta.class_names,
        "encoder": shard.meta.encoder.name,
        "encoder_sha256": shard.meta.encoder.weights_sha256,
        "settings": run,
    }
    _log.info("Model written to %s", write_model(folder, _to_numpy(result.arrays), about))


def make_strategy(settings: Settings, dims: Sequence[int], roster: Roster) -> Strategy:
    """Build the strategy that the settings name.

    Raises:
        ValueError: the settings cannot be used with this network.
    """
    # Flower's own strategies draw their clients from Python's global generator.
    random.seed(settings.seed)
    common: dict[str, Any] = {
        "fraction_train": settings.fraction_train,
        "fraction_evaluate": 0.0,
        "min_train_nodes": settings.min_train_nodes,
        "min_available_nodes": settings.min_available_nodes,
    }
    if settings.strategy == "fedavg":
        return FedAvg(**common)
    return ISTStrategy(
        mlp_axes(mlp_shapes(dims)),
        num_slices=settings.num_slices or None,
        shares=settings.slice_shares(),
        seed=settings.seed,
        packed=settings.packed,
        node_timeout=settings.node_timeout,
        roster=roster,
        **common,
    )


def check_clients(clients: Sequence[Client], shard: TokenShard) -> None:
    """Refuse clients whose tokens are not of the kind that the server evaluates on.

    Raises:
        SettingsError: a client's shard could not be opened, or its tokens' width, classes or
            encoder differ from the server's shard.
    """
    expected: Mapping[str, Any] = {
        "token-dim": shard.meta.dim,
        "class-names": list(shard.meta.class_names),
        "encoder-sha256": shard.meta.encoder.weights_sha256,
    }
    for client in clients:
        if client.problem:
            raise SettingsError(f"{client.name} is not ready: {client.problem}")
        for fact, value in expected.items():
            if fact in client.facts and client.facts[fact] != value:
                raise SettingsError(
                    f"{client.name} holds tokens with {fact} {client.facts[fact]!r}, but the "
                    f"server's shard has {value!r}: encode both with the same encoder and classes."
                )


def _to_numpy(arrays: ArrayRecord) -> dict[str, Any]:
    return {name: array.numpy() for name, array in arrays.items()}
