"""The server's test shard, its validation part, and each round's model, evaluated on both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from flower_ist.classifier.ensemble import ensemble_of
from flower_ist.classifier.evaluate import evaluate_arrays, evaluate_model
from flower_ist.classifier.mlp import mlp_dims
from flower_ist.classifier.skip import LinearSkip, with_skip
from flower_ist.grids.metered import Meter
from flower_ist.runs.log import RunLog
from flower_ist.strategies.submodel import SubmodelStrategy
from flower_ist.tokens.demo import test_shard
from flower_ist.tokens.meta import encoder_settings
from flower_ist.tokens.recipe import Recipe
from flower_ist.tokens.shard import TokenShard, open_shard, test_folder
from server_app.build import Score
from server_app.chosen_round import ChosenRound
from server_app.network import Network
from server_app.run_folder import RunFolder
from server_app.settings import Settings, SettingsError
from server_app.warm_start import WarmStart


def server_shard(data_dir: str) -> TokenShard:
    """Open the test shard of a data folder and verify it; without a folder, the demo's.

    Raises:
        SettingsError: the folder holds none.
        ShardError: it is damaged.
    """
    if not data_dir:
        return test_shard()
    path = test_folder(Path(data_dir))
    if not path.exists():
        raise SettingsError(
            f"'data-dir' is {data_dir!r}, but holds no shard {path.name!r}: give the folder that "
            "prep wrote with --out, made without --test-share 0."
        )
    return open_shard(path, verify=True)


def split_rows(
    labels: NDArray[np.integer], share: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Divide rows into a validation and a test part, stratified by class.

    The random choice is the same for all runs, whatever their own seed: where several seeds choose
    together, none of them may be tested on what another one chose by.

    Args:
        labels: (N,).
        share: of each class's rows, rounded, that the validation part gets.

    Returns:
        Sorted rows of the validation part and of the rest; disjoint, together all N.
    """
    generator = np.random.default_rng([0, 2])
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen[rows[: round(share * len(rows))]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def split_shard(shard: TokenShard, share: float) -> tuple[TokenShard | None, TokenShard]:
    """Return the validation part and the test part; with a share of 0, None and the whole shard.

    The parts are copies in memory, in the stored dtype.

    Raises:
        SettingsError: a part would be empty.
    """
    if share == 0:
        return None, shard
    parts = split_rows(shard.labels, share)
    if not all(len(rows) for rows in parts):
        raise SettingsError(
            f"'validation-share' is {share}, but of the server's {len(shard)} examples that leaves "
            f"{len(parts[0])} for validation and {len(parts[1])} for the test: choose another."
        )
    validation, test = map(shard.select, parts)
    return validation, test


def score_on(validation: TokenShard | None) -> Score | None:
    """Return the function that gives a head's accuracy on the validation part, if there is one."""
    if validation is None:
        return None
    return lambda head: evaluate_arrays(head, validation)[0]


@dataclass
class RoundModel:
    """The trained weights, and the net for prediction, made from them once per round.

    The net is for raw tokens: it is evaluated and written as the run's model, while clients
    continue from the trained weights.

    Attributes:
        settings: of the run.
        network: the one that is trained.
        start: what the run began with: it makes the net, and may have a head inside it.
        strategy: the one that trains.
        meter: knows how many clients a round asked.
        test: examples that ``accuracy`` and ``loss`` are of.
        validation: examples that ``validation_accuracy`` is of; None for none.
        chosen: which round's model is the run's, by validation; None: the last one's.
        trained: what is trained, name -> array, after the round that was evaluated last.
        net: the one for prediction, name -> array, after the same round.
    """

    settings: Settings
    network: Network
    start: WarmStart
    strategy: Strategy
    meter: Meter
    test: TokenShard
    validation: TokenShard | None
    chosen: ChosenRound | None = None
    trained: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    net: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Make the net from the trained arrays, and return its accuracies and its loss."""
        self.trained = {name: array.numpy() for name, array in arrays.items()}
        features = self.network.features
        trained = self.trained if features is None else features.fold(self.trained)
        self.net = self.start.net(trained)
        accuracy, loss = evaluate_arrays(self.net, self.test, self.start.skip)
        metrics = MetricRecord({"accuracy": accuracy, "loss": loss})
        if self.validation is not None:
            found = evaluate_arrays(self.net, self.validation, self.start.skip)
            metrics["validation_accuracy"] = found[0]
            if self.chosen is not None:
                self.chosen.look(server_round, found[0])
                metrics["model_round"] = self.chosen.number
        # Round 0 asks for statistics at most: its clients train nothing.
        asked = len(self.meter.traffic(server_round).selected) if server_round > 0 else 0
        parts = {"ensemble_accuracy": self.test, "ensemble_validation_accuracy": self.validation}
        metrics.update(ensemble_accuracies(self.strategy, asked, self.net, parts, self.start.skip))
        return metrics

    def save(self, server_round: int, run: RunFolder, log: RunLog) -> None:
        """Write the checkpoint of the round that was evaluated last, and its model if chosen."""
        # Without validation the initial weights are no model, and every later round's is one.
        is_chosen = server_round == (self.chosen.number if self.chosen else max(1, server_round))
        model = self.start.model(self.net) if is_chosen else None
        run.save(server_round, self.trained, self.strategy, log, model, self.about(server_round))

    def about(self, server_round: int) -> dict[str, Any]:
        """Return the model file's description of the model of a round, as JSON values."""
        meta = self.test.meta
        return {
            "format": "flower-ist-mlp",
            "round": server_round,
            "dims": mlp_dims({name: array.shape for name, array in self.net.items()}),
            "class_names": meta.class_names,
            "encoder": meta.encoder.name,
            "encoder_sha256": meta.encoder.weights_sha256,
            "encoder_settings": encoder_settings(meta.encoder),
            "recipe": Recipe.of(meta).to_json(),
            "settings": self.settings.to_run_config(),
        }


def ensemble_accuracies(
    strategy: Strategy,
    num_clients: int,
    weights: Mapping[str, NDArray[Any]],
    shards: Mapping[str, TokenShard | None],
    skip: LinearSkip | None = None,
) -> dict[str, float]:
    """Return the accuracies of a strategy's averaged logits, under the names of the shards.

    Args:
        strategy: any; without slices that are the same in all rounds nothing is returned.
        num_clients: how many trained in the last round.
        weights: the whole model.
        shards: name -> what to evaluate on; None: nothing under this name.
        skip: a fixed head whose outputs are added to the nets'.
    """
    if not isinstance(strategy, SubmodelStrategy):
        return {}
    if not (cuts := strategy.assignment.fixed_cuts(num_clients)):
        return {}
    model = with_skip(ensemble_of(weights, cuts), skip)
    return {
        name: evaluate_model(model, shard)[0] for name, shard in shards.items() if shard is not None
    }
