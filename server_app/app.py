"""The Flower ServerApp: settings -> clients -> strategy -> run log and model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from flower_ist.class_names import class_difference
from flower_ist.clients import AdmittingGrid, Client, Roster, await_nodes, client_text
from flower_ist.demo_tokens import test_shard
from flower_ist.evaluation import evaluate_arrays
from flower_ist.meter import MeteredGrid
from flower_ist.model import initial_weights
from flower_ist.recorder import RoundRecorder
from flower_ist.runlog import RunLog
from flower_ist.tokens import TokenShard, open_shard, test_folder
from server_app.output import output_folder, write_model, write_settings
from server_app.settings import Settings, SettingsError
from server_app.strategies import build_strategy, check_strategy, model_dims
from server_app.validation import split_shard

app = ServerApp()
_log = logging.getLogger("flwr")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation from settings to model. Whatever is wrong is raised before training."""
    settings = Settings.from_run_config(context.run_config)
    check_strategy(settings)
    data = settings.data_dir
    shard = open_shard(test_folder(Path(data)), verify=True) if data else test_shard()
    validation, test = split_shard(shard, settings.validation_share, settings.seed)
    dims = model_dims(settings, shard.meta.dim, shard.meta.num_classes)

    meter = MeteredGrid(grid)
    roster = Roster()
    admitted = AdmittingGrid(meter, roster, lambda client: why_not(client, shard))
    needed = max(settings.min_available_nodes, settings.min_train_nodes)
    node_ids = await_nodes(meter, needed, settings.node_timeout)
    check_clients(roster.meet(meter, node_ids), shard, needed)
    score = None if validation is None else partial(_accuracy, validation)
    strategy = build_strategy(settings, dims, roster, score)

    folder = output_folder(settings, context.run_id)
    run_log = RunLog(folder)
    write_settings(folder, settings)
    _log.info("This run is written to %s", folder)

    def evaluate(_: int, arrays: ArrayRecord) -> MetricRecord:
        weights = _to_numpy(arrays)
        accuracy, loss = evaluate_arrays(weights, test)
        metrics = MetricRecord({"accuracy": accuracy, "loss": loss})
        if validation is not None:
            metrics["validation_accuracy"] = _accuracy(validation, weights)
        return metrics

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
            grid=admitted,
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


def check_clients(clients: Sequence[Client], shard: TokenShard, needed: int) -> None:
    """Refuse to start with clients that are not set up right, or with too few of them.

    A client that gives no answer at all is left out of the run instead.

    Raises:
        SettingsError: a client's shard could not be opened, its tokens are not of the kind that the
            server evaluates on, or fewer than ``needed`` clients answered.
    """
    silent = [client.name for client in clients if client.silent]
    for client in clients:
        reason = why_not(client, shard)
        if reason and not client.silent:
            raise SettingsError(f"{client.name} is not ready: {reason}.")
    if len(clients) - len(silent) < needed:
        raise SettingsError(
            f"{needed} clients are needed, but only {len(clients) - len(silent)} are ready: "
            f"{', '.join(silent)} gave no answer in time."
        )


def why_not(client: Client, shard: TokenShard) -> str:
    """Return why a client cannot take part: its own problem, or tokens of another kind."""
    if client.problem:
        return client.problem
    expected: Mapping[str, Any] = {
        "token-dim": shard.meta.dim,
        "class-names": list(shard.meta.class_names),
        "encoder-sha256": shard.meta.encoder.weights_sha256,
    }
    for fact, value in expected.items():
        told = client.facts.get(fact, value)
        if told == value:
            continue
        if isinstance(told, list) and fact == "class-names":
            names = [str(name) for name in told]
            difference = class_difference(names, value, "the client", "the server")
            return (
                f"its classes are not the server's: {difference}; encode the client's images again "
                "with flower-ist prep --classes FILE, where FILE is the classes.json that prep "
                "wrote beside the server's shards"
            )
        return (
            f"it holds tokens with {fact} {client_text(repr(told))}, but the server's shard has "
            f"{value!r}: encode both with the same encoder and classes"
        )
    return ""


def _accuracy(shard: TokenShard, weights: Mapping[str, Any]) -> float:
    return evaluate_arrays(weights, shard)[0]


def _to_numpy(arrays: ArrayRecord) -> dict[str, Any]:
    return {name: array.numpy() for name, array in arrays.items()}
