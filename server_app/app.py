"""The Flower ServerApp: settings -> clients -> strategy -> run log and model."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from flower_ist.class_names import class_difference
from flower_ist.clients import AdmittingGrid, Client, Roster, await_nodes, client_text
from flower_ist.compressed_grid import compressed
from flower_ist.demo_tokens import test_shard
from flower_ist.evaluation import ensemble_accuracies, evaluate_arrays
from flower_ist.event_log import event_log
from flower_ist.meter import MeteredGrid
from flower_ist.model import initial_weights
from flower_ist.prior_grid import PriorGrid
from flower_ist.recorder import RoundRecorder
from flower_ist.resume import ResumedStrategy
from flower_ist.stragglers import DeadlineGrid
from flower_ist.strategy_state import load_strategy_state
from flower_ist.tokens import TokenShard, open_shard, test_folder
from flower_ist.weight_average import WeightAverage
from server_app.head_start import head_start
from server_app.output import MODEL_FILE, output_folder
from server_app.run_folder import RunFolder
from server_app.schedules import scheduled
from server_app.settings import Settings, SettingsError
from server_app.strategies import build_strategy, check_strategy, model_dims
from server_app.validation import split_shard

# A client answers its first question once its process has imported torch.
_ANSWER_SECONDS = 60.0

app = ServerApp()
_log = logging.getLogger("flwr")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation from settings to model. Whatever is wrong is raised before training.

    With ``resume`` it goes on after the last checkpoint of the run in ``output-dir``.
    """
    settings = Settings.from_run_config(context.run_config)
    check_strategy(settings)
    data = settings.data_dir
    shard = open_shard(test_folder(Path(data)), verify=True) if data else test_shard()
    folder = output_folder(settings, context.run_id)
    with RunFolder(folder, settings, shard) as run:
        if not run.is_finished():
            _federate(grid, settings, run, shard)


def _federate(grid: Grid, settings: Settings, run: RunFolder, shard: TokenShard) -> None:
    """Run the rounds that are left."""
    validation, test = split_shard(shard, settings.validation_share, settings.seed)
    dims = model_dims(settings, shard.meta.dim, shard.meta.num_classes)

    def check(client: Client) -> str:
        return why_not(client, shard) or run.identity.why_changed(client)

    deadlines = DeadlineGrid(
        grid, close_early=settings.close_early, min_replies=settings.min_train_nodes
    )
    meter = MeteredGrid(deadlines)
    meter.begin_round(0 if run.rounds_done is None else run.rounds_done + 1)
    roster = Roster(query_timeout=max(_ANSWER_SECONDS, settings.node_timeout))
    dtypes = (settings.wire_dtype_down, settings.wire_dtype_up)
    needed = max(settings.min_available_nodes, settings.min_train_nodes)
    node_ids = await_nodes(meter, needed, settings.node_timeout)
    check_clients(roster.meet(meter, node_ids), check, needed)
    score = None if validation is None else partial(_accuracy, validation)
    shape = (shard.meta.dim, shard.meta.num_classes)
    asked = AdmittingGrid(meter, roster, check)
    start = head_start(settings, run.path, run.checkpoint is not None, asked, roster, shape, score)
    informed = meter if start.prior is None else PriorGrid(meter, start.prior)
    small = compressed(informed, *dtypes, meter=meter, seed=settings.seed, roster=roster)
    admitted = AdmittingGrid(small, roster, check)
    strategy = build_strategy(settings, dims, roster, score)
    weights: Mapping[str, NDArray[Any]] = initial_weights(dims, settings.seed)
    average = WeightAverage(settings.average_rounds) if settings.average_rounds else None
    rounds = scheduled(strategy, settings)
    if run.checkpoint is not None:
        load_strategy_state(strategy, run.checkpoint.strategy)
        if average is not None:
            average.load_state(run.checkpoint.average)
        random.setstate(run.checkpoint.random_state)
        weights = run.checkpoint.weights
        rounds = ResumedStrategy(rounds, run.checkpoint.server_round)

    def averaged(arrays: ArrayRecord) -> dict[str, Any]:
        return (average.mean() if average is not None else {}) or _to_numpy(arrays)

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        if average is not None and server_round > 0:  # nobody trained the initial model
            average.add(_to_numpy(arrays))
        net = start.net(averaged(arrays))
        accuracy, loss = evaluate_arrays(net, test, start.blend)
        metrics = MetricRecord({"accuracy": accuracy, "loss": loss})
        if validation is not None:
            metrics["validation_accuracy"] = evaluate_arrays(net, validation, start.blend)[0]
        asked = len(meter.traffic(server_round).selected)
        parts = {"ensemble_accuracy": test, "ensemble_validation_accuracy": validation}
        metrics.update(ensemble_accuracies(strategy, asked, net, parts, start.blend))
        return metrics

    settings_of_rounds = ConfigRecord(
        {
            "local-steps": settings.local_steps,
            "batch-size": settings.batch_size,
            "learning-rate": settings.learning_rate,
            "seed": settings.seed,
        }
    )
    about = {
        "format": "flower-ist-mlp",
        "dims": dims,
        "class_names": shard.meta.class_names,
        "encoder": shard.meta.encoder.name,
        "encoder_sha256": shard.meta.encoder.weights_sha256,
        "ridge_blend": settings.ridge_blend if start.blend else 0.0,
        "settings": settings.to_run_config(),
    }
    log = run.open_log()
    start.save(run.path)

    def save(server_round: int, arrays: ArrayRecord) -> None:
        state = {} if average is None else average.state()
        run.save(server_round, arrays, strategy, log, state, start.model(averaged(arrays)), about)
        if settings.keep_checkpoints:
            events.write("checkpoint-written", round=server_round)

    with (
        event_log(run.path) as events,
        RoundRecorder(
            meter,
            log,
            strategy,
            evaluate,
            settings.to_run_config(),
            roster,
            save=save,
            resumed_after=run.rounds_done,
        ) as recorder,
    ):
        rounds.start(
            grid=admitted,
            initial_arrays=ArrayRecord({name: Array(array) for name, array in weights.items()}),
            num_rounds=settings.num_rounds,
            timeout=settings.round_timeout,
            train_config=settings_of_rounds,
            evaluate_fn=recorder,
        )
    _log.info("The model is in %s", run.path / MODEL_FILE)


def check_clients(clients: Sequence[Client], check: Callable[[Client], str], needed: int) -> None:
    """Refuse to start with clients that are not set up right, or with too few of them.

    A client that gives no answer at all is left out of the run instead.

    Args:
        clients: all that were met.
        check: returns why a client cannot take part, or an empty text.
        needed: number of clients.

    Raises:
        SettingsError: ``check`` has a reason against a client (its shard could not be opened, its
            tokens are of another kind than the server's), or fewer than ``needed`` answered.
    """
    silent = [client.name for client in clients if client.silent]
    for client in clients:
        reason = check(client)
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
