"""The model of a round: made once, and the same for the metrics, the file and the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.classifier.evaluate import ensemble_logits
from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.strategies.submodel import SubmodelStrategy
from flower_ist.submodels.axes import mlp_axes
from flower_ist.tokens.shard import open_shard
from server_app.app import app as server_app
from server_app.head_start import HeadStart
from server_app.round_model import ensemble_accuracies

DIMS = [12, 9, 8, 3]
AXES = mlp_axes(mlp_shapes(DIMS))
MakeConfig = Callable[..., dict[str, Any]]


@pytest.fixture
def config(blob_config: MakeConfig) -> dict[str, Any]:
    """A run of two quick rounds whose model differs from what is trained in all ways there are."""
    return blob_config(
        num_rounds=2,
        local_steps=2,
        hidden_width=8,
        validation_share=0.3,
        standardize=True,
        ridge_blend=2.0,
    )


def test_the_net_is_made_once_a_round(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Of the initial model too, which is evaluated, though only its checkpoint is written."""
    made: list[dict[str, np.ndarray]] = []
    fold = HeadStart.net

    def counted(start: HeadStart, weights: Any) -> Any:
        made.append(fold(start, weights))
        return made[-1]

    monkeypatch.setattr(HeadStart, "net", counted)
    run_in_process(server_app, client_app, 4, config)
    assert len(made) == 3
    folder = Path(config["output-dir"])
    written = load_file(folder / "model.safetensors")
    assert written.keys() - made[-1].keys() == {"ridge.weight", "ridge.bias"}
    for name, array in made[-1].items():
        assert written[name].tobytes() == array.tobytes()


def test_the_checkpoint_holds_what_is_trained(config: dict[str, Any]):
    """Not the net for tokens that are not standardized, which differs in the first layer."""
    run_in_process(server_app, client_app, 4, config)
    folder = Path(config["output-dir"])
    kept = load_file(folder / "checkpoints" / "round-000002.safetensors")
    written = load_file(folder / "model.safetensors")
    assert written["fc2.weight"].tobytes() == kept["weights/fc2.weight"].tobytes()
    assert not np.allclose(written["fc1.weight"], kept["weights/fc1.weight"])


@pytest.mark.parametrize("standardize", [False, True])
def test_the_ensemble_is_evaluated_once_its_nets_are_trained(
    blob_config: MakeConfig, standardize: bool
):
    """Clients that sent statistics before round 1 trained no net."""
    config = blob_config(
        strategy="ist-fixed", num_rounds=1, local_steps=1, hidden_width=8, standardize=standardize
    )
    run_in_process(server_app, client_app, 4, config)
    lines = read_run(Path(config["output-dir"]))
    assert ["ensemble_accuracy" in line for line in lines] == [False, True]


def test_accuracies_are_of_the_averaged_logits(blobs):
    shard = open_shard(blobs / "test")
    weights = initial_weights(DIMS, seed=3)
    strategy = SubmodelStrategy(AXES, scheme="ist-fixed", seed=1)
    parts = {"ensemble_accuracy": shard, "ensemble_validation_accuracy": None}
    found = ensemble_accuracies(strategy, 2, weights, parts)
    tokens, labels = shard.batch(slice(None))
    logits = ensemble_logits(weights, strategy.assignment.fixed_cuts(2), tokens)
    assert found == {"ensemble_accuracy": (logits.argmax(axis=1) == labels).mean()}


def test_others_have_no_averaged_logits(blobs):
    parts = {"ensemble_accuracy": open_shard(blobs / "test")}
    assert ensemble_accuracies(FedAvg(), 2, {}, parts) == {}
    assert ensemble_accuracies(SubmodelStrategy(AXES, scheme="ist"), 2, {}, parts) == {}
