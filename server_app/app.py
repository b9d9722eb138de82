"""The Flower ServerApp: settings -> clients -> strategy -> run log and model."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from flower_ist.classifier.mlp import initial_weights
from flower_ist.grids.admission import Admission
from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.clients import Client, ClientRegistry
from flower_ist.grids.deadlines import Deadlines
from flower_ist.grids.metered import Meter
from flower_ist.grids.packed import Packed
from flower_ist.grids.prior import PriorOnce
from flower_ist.runs.checkpoint import Checkpoint
from flower_ist.runs.recorder import RoundRecorder
from flower_ist.strategies.resumed import ResumedStrategy
from flower_ist.strategies.state import load_strategy_state
from flower_ist.tokens.shard import TokenShard
from flower_ist.wire.layout import record_of
from server_app.admission import meet_clients, why_not
from server_app.build import build_strategy, model_dims
from server_app.head_start import head_start
from server_app.local_steps import local_steps
from server_app.newcomers import Newcomers
from server_app.output import MODEL_FILE, output_folder
from server_app.round_model import RoundModel
from server_app.run_folder import RunFolder
from server_app.settings import Settings
from server_app.validation import score_on, server_shard, split_shard

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
    shard = server_shard(settings.data_dir)
    folder = output_folder(settings, context.run_id)
    with RunFolder(folder, settings, shard) as run:
        if not run.is_finished():
            _federate(grid, settings, run, shard)


def _federate(grid: Grid, settings: Settings, run: RunFolder, shard: TokenShard) -> None:
    """Run the rounds that are left."""
    validation, test = split_shard(shard, settings.validation_share, settings.seed)
    score = score_on(validation)
    dims = model_dims(settings, shard.meta.dim, shard.meta.num_classes)

    def check(client: Client) -> str:
        return why_not(client, shard) or run.identity.why_changed(client)

    meter, priors = Meter(), PriorOnce()
    meter.current_round = 0 if run.rounds_done is None else run.rounds_done + 1
    registry = ClientRegistry(query_timeout=max(_ANSWER_SECONDS, settings.node_timeout))
    deadlines = Deadlines(close_early=settings.close_early, min_replies=settings.min_train_nodes)
    grid = FilteredGrid(grid, [meter, deadlines])
    clients = meet_clients(grid, registry, check, settings)
    if run.identity.local_steps is None:
        run.identity.local_steps = local_steps(settings, clients)
    packed = Packed(*settings.wire_dtypes(), seed=settings.seed, registry=registry)
    grid = FilteredGrid(grid, [meter.outcomes, Admission(registry, check), packed, priors])
    shape = (shard.meta.num_classes, shard.meta.dim)
    resumed = None if run.checkpoint is None else run.path
    start = head_start(settings, resumed, grid, meter, registry, shape, score)
    if start.prior is not None:
        priors.renew(start.prior)
    if start.sums is not None:
        newcomers = Newcomers(
            registry, start, priors, run.path, lambda: meter.current_round >= settings.num_rounds
        )
        grid = FilteredGrid(grid, [newcomers])
    strategy = build_strategy(settings, dims, registry, score)
    rounds = strategy
    weights: Mapping[str, NDArray[Any]] = initial_weights(dims, settings.seed)
    if run.checkpoint is not None:
        weights = _restored(run.checkpoint, strategy)
        rounds = ResumedStrategy(strategy, run.checkpoint.server_round)
    train_config = ConfigRecord(
        {
            "local-steps": run.identity.local_steps,
            "batch-size": settings.batch_size,
            "learning-rate": settings.learning_rate,
            "seed": settings.seed,
        }
    )
    model = RoundModel(settings, start, strategy, meter, test, validation)
    log = run.open_log()
    start.save(run.path)
    with RoundRecorder(
        meter,
        log,
        strategy,
        model.evaluate,
        settings.to_run_config(),
        registry,
        save=lambda server_round, _: model.save(server_round, run, log),
        resumed_after=run.rounds_done,
    ) as recorder:
        rounds.start(
            grid=grid,
            initial_arrays=record_of(weights),
            num_rounds=settings.num_rounds,
            timeout=settings.round_timeout,
            train_config=train_config,
            evaluate_fn=recorder,
        )
    _log.info("The model is in %s", run.path / MODEL_FILE)


def _restored(checkpoint: Checkpoint, strategy: Strategy) -> Mapping[str, NDArray[Any]]:
    """Put all that has a state into that of after the checkpoint's round; return the weights."""
    load_strategy_state(strategy, checkpoint.strategy)
    random.setstate(checkpoint.random_state)
    return checkpoint.weights
