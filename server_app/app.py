"""The Flower ServerApp: settings -> clients -> strategy -> run log and model."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from flower_ist.classifier.initial import InitialWeights
from flower_ist.classifier.mlp import initial_weights
from flower_ist.grids.admission import Admission
from flower_ist.grids.answers import Answers
from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.deadlines import Deadlines
from flower_ist.grids.metered import Meter
from flower_ist.grids.packed import Packed
from flower_ist.grids.prior import PriorOnce
from flower_ist.runs.log import read_run
from flower_ist.runs.recorder import RoundRecorder
from flower_ist.runs.socket_bytes import SocketBytes
from flower_ist.strategies.resumed import ResumedStrategy
from flower_ist.strategies.silent_rounds import SilentRounds
from flower_ist.strategies.state import load_strategy_state
from flower_ist.tokens.shard import TokenShard
from flower_ist.use.card import CARD, write_card
from flower_ist.wire.protocol import EXAMPLES_KEY, FEATURES_KEY
from flower_ist.wire.record_tensors import record_of
from flower_ist.wire.reported import finite
from server_app.admission import local_steps, meet_clients, rejection_reason
from server_app.build import before_strategy, build_strategy
from server_app.evaluation import RoundModel, score_on, server_shard, split_shard
from server_app.network import Network, most_bytes, network_of
from server_app.newcomers import Newcomers
from server_app.run_folder import MODEL_FILE, RunFolder, output_folder
from server_app.settings import Settings
from server_app.warm_start import closed_form_for, warm_start

# A client answers its first question once its process has started and read its shard.
_ANSWER_SECONDS = 60.0

app = ServerApp()
_log = logging.getLogger("flwr")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation from settings to model. Setup errors are raised before training.

    With ``resume`` it continues after the last checkpoint of the run in ``output-dir``.
    """
    settings = Settings.from_run_config(context.run_config)
    shard = server_shard(settings.data_dir)
    folder = output_folder(settings, context.run_id)
    with RunFolder(folder, settings, shard) as run:
        finished = run.is_finished()
        if finished and (run.path / CARD).exists():
            return
        clients = _clients_of(run) if finished else _federate(grid, settings, run, shard)
        test = split_shard(shard, settings.validation_share)[1]
        _log.info("Its card is %s", write_card(run.path, shard.meta, len(test), clients))


def _federate(
    grid: Grid, settings: Settings, run: RunFolder, shard: TokenShard
) -> Mapping[str, int]:
    """Run the rounds that are left; return the clients' names and numbers of examples."""
    # What is built first is refused first: before a client is asked or a file written.
    validation, test = split_shard(shard, settings.validation_share)
    score = score_on(validation)
    network = network_of(settings, shard.meta.dim, shard.meta.num_classes)
    registry = ClientRegistry(
        query_timeout=max(_ANSWER_SECONDS, settings.node_timeout), names=run.identity.names
    )
    strategy = build_strategy(settings, network, registry, score)
    closed_form = closed_form_for(settings, registry, score)

    # Which clients are connected, which are admitted, and how long each trains in a round.
    check = partial(rejection_reason, shard=shard)
    meter, priors = Meter(), PriorOnce()
    socket_bytes = SocketBytes.from_environment()
    meter.current_round = 0 if run.rounds_done is None else run.rounds_done + 1
    deadlines = Deadlines(close_early=settings.close_early, min_replies=settings.min_train_nodes)
    answers = Answers(most_bytes(network, shard.meta.dim, shard.meta.num_classes))
    grid = FilteredGrid(grid, [meter, deadlines, answers])
    clients = meet_clients(grid, registry, check, settings)
    if run.identity.local_steps is None:
        run.identity.local_steps = local_steps(settings, clients)
    packed = Packed(
        *settings.wire_dtypes(),
        seed=settings.seed,
        registry=registry,
        initial=InitialWeights(settings.seed, tuple(network.dims)),
        directions=priors.directions,
    )
    grid = FilteredGrid(grid, [meter.outcomes, Admission(registry, check), packed, priors])

    # The distribution of their tokens together; clients that join later are included.
    resumed = None if run.checkpoint is None else run.path
    shape = (shard.meta.num_classes, shard.meta.dim)
    start = warm_start(settings, closed_form, resumed, grid, meter, shape)
    if start.prior is not None:
        priors.renew(start.prior)
    if start.sums is not None:
        newcomers = Newcomers(
            registry, start, priors, run.path, lambda: meter.current_round, settings.num_rounds
        )
        grid = FilteredGrid(grid, [newcomers])
    grid = FilteredGrid(grid, before_strategy(settings, registry))

    # The rounds, each of them logged, evaluated and saved.
    weights = _weights(settings, network.dims, run, strategy)
    chosen = run.chosen_round(validation)
    model = RoundModel(settings, network, start, strategy, meter, test, validation, chosen)
    early_stop, _ = run.early_stop()
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
        over=early_stop.why,
        resumed_after=run.rounds_done,
        socket_bytes=socket_bytes,
        silent_rounds=SilentRounds(settings.node_timeout),
    ) as recorder:
        done = run.rounds_done
        rounds = strategy if done is None else ResumedStrategy(strategy, done)
        rounds.start(
            grid=grid,
            initial_arrays=record_of(weights),
            num_rounds=settings.num_rounds,
            timeout=settings.round_timeout,
            train_config=_train_config(settings, network, run.identity.local_steps),
            evaluate_fn=recorder,
            **recorder.should_stop(),
        )
        recorder.require_a_round()
    which = "last round" if chosen is None else chosen.why()
    _log.info("The model of the %s is in %s", which, run.path / MODEL_FILE)
    # As they are now: images may have joined a client's shard or left it.
    examples = {each.name: registry.facts(each.node_id).get(EXAMPLES_KEY) for each in clients}
    return {name: int(finite(told) or 0) for name, told in examples.items()}


def _clients_of(run: RunFolder) -> dict[str, int]:
    """Return the clients of a finished run, each with 0 examples: its log does not say how many."""
    names = (name for line in read_run(run.path) if line["round"] for name in line["clients"])
    return dict.fromkeys(names, 0)


def _weights(
    settings: Settings, dims: Sequence[int], run: RunFolder, strategy: Strategy
) -> Mapping[str, NDArray[Any]]:
    """Return the weights to train on; a resumed run also gets its strategy's state back."""
    if run.checkpoint is None:
        # Flower's own strategies sample clients with Python's global generator. Node ids are random
        # outside this process: if not all clients are sampled, the sample differs between runs.
        random.seed(settings.seed)
        return initial_weights(dims, settings.seed)
    load_strategy_state(strategy, run.checkpoint.strategy)
    random.setstate(run.checkpoint.random_state)
    return run.checkpoint.weights


def _train_config(settings: Settings, network: Network, steps: int) -> ConfigRecord:
    features = 0 if network.features is None else len(network.features.bias)
    return ConfigRecord(
        {
            "local-steps": steps,
            "batch-size": settings.batch_size,
            "learning-rate": settings.learning_rate,
            "seed": settings.seed,
            **({FEATURES_KEY: features} if features else {}),
        }
    )
