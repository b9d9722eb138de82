"""The model of a round that is over: evaluated, then written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from flower_ist.classifier.blend import RidgeBlend
from flower_ist.classifier.evaluate import evaluate_arrays, evaluate_ensemble
from flower_ist.grids.metered import Meter
from flower_ist.runs.log import RunLog
from flower_ist.strategies.submodel import SubmodelStrategy
from flower_ist.tokens.meta import encoder_settings
from flower_ist.tokens.shard import TokenShard
from server_app.build import model_dims
from server_app.head_start import HeadStart
from server_app.run_folder import RunFolder
from server_app.settings import Settings


@dataclass
class RoundModel:
    """What is trained, and the net that predicts, made of it once a round.

    The net is for tokens as they are: it is what is evaluated and written as the run's model, while
    clients go on from what is trained.

    Attributes:
        settings: of the run.
        start: what the run began with: it makes the net, and may have a head beside it.
        strategy: that trains.
        meter: knows how many clients a round asked.
        test: examples that ``accuracy`` and ``loss`` are of.
        validation: examples that ``validation_accuracy`` is of; None for none.
        trained: what is trained, name -> array, after the round that was evaluated last.
        net: that predicts, name -> array, after the same round.
    """

    settings: Settings
    start: HeadStart
    strategy: Strategy
    meter: Meter
    test: TokenShard
    validation: TokenShard | None
    trained: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    net: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Make the net of the arrays that are trained, and return its accuracies and its loss."""
        self.trained = {name: array.numpy() for name, array in arrays.items()}
        self.net = self.start.net(self.trained)
        accuracy, loss = evaluate_arrays(self.net, self.test, self.start.blend)
        metrics = MetricRecord({"accuracy": accuracy, "loss": loss})
        if self.validation is not None:
            found = evaluate_arrays(self.net, self.validation, self.start.blend)
            metrics["validation_accuracy"] = found[0]
        # Round 0 asks for statistics at most: its clients train nothing.
        asked = len(self.meter.traffic(server_round).selected) if server_round > 0 else 0
        parts = {"ensemble_accuracy": self.test, "ensemble_validation_accuracy": self.validation}
        metrics.update(ensemble_accuracies(self.strategy, asked, self.net, parts, self.start.blend))
        return metrics

    def save(self, server_round: int, run: RunFolder, log: RunLog) -> None:
        """Write the model and the checkpoint of the round that was evaluated last."""
        run.save(
            server_round,
            self.trained,
            self.strategy,
            log,
            self.start.model(self.net),
            self.about(),
        )

    def about(self) -> dict[str, Any]:
        """Return what the model's file says of it, as JSON values."""
        meta = self.test.meta
        return {
            "format": "flower-ist-mlp",
            "dims": model_dims(self.settings, meta.dim, meta.num_classes),
            "class_names": meta.class_names,
            "encoder": meta.encoder.name,
            "encoder_sha256": meta.encoder.weights_sha256,
            "encoder_settings": encoder_settings(meta.encoder),
            "ridge_blend": self.settings.ridge_blend if self.start.blend else 0.0,
            "settings": self.settings.to_run_config(),
        }


def ensemble_accuracies(
    strategy: Strategy,
    num_clients: int,
    weights: Mapping[str, NDArray[Any]],
    shards: Mapping[str, TokenShard | None],
    blend: RidgeBlend | None = None,
) -> dict[str, float]:
    """Return the accuracies of a strategy's averaged logits, under the names of the shards.

    Args:
        strategy: any; without slices that are the same in all rounds nothing is returned.
        num_clients: how many trained in the last round.
        weights: the whole model.
        shards: name -> what to evaluate on; None: nothing under this name.
        blend: a ridge head that predicts beside the nets.
    """
    if not isinstance(strategy, SubmodelStrategy):
        return {}
    cuts = strategy.assignment.fixed_cuts(num_clients)
    return {
        name: evaluate_ensemble(weights, cuts, shard, blend)[0]
        for name, shard in shards.items()
        if cuts and shard is not None
    }
