"""The validation part of the server's shard, and the model of a round: made once for all uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.classifier.ensemble import ensemble_of
from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.strategies.submodel import SubmodelStrategy
from flower_ist.submodels.axes import mlp_axes
from flower_ist.tokens.demo import test_shard as demo_test_shard
from flower_ist.tokens.shard import ShardError, open_shard
from server_app.app import app as server_app
from server_app.evaluation import (
    ensemble_accuracies,
    score_on,
    server_shard,
    split_rows,
    split_shard,
)
from server_app.settings import SettingsError
from server_app.warm_start import WarmStart

DIMS = [12, 9, 8, 3]
AXES = mlp_axes(mlp_shapes(DIMS))
MakeConfig = Callable[..., dict[str, Any]]


def test_the_servers_shard_is_that_of_the_data_folder_or_the_demo(blobs: Path):
    assert len(server_shard(str(blobs))) == 300
    assert (server_shard("").image_ids == demo_test_shard().image_ids).all()


def test_a_folder_without_the_servers_shard_is_named_by_its_setting(tmp_path: Path):
    with pytest.raises(SettingsError) as caught:
        server_shard(str(tmp_path))
    assert str(caught.value) == (
        f"'data-dir' is '{tmp_path}', but holds no shard 'test': give the folder that prep wrote "
        "with --out, made without --test-share 0."
    )
    (tmp_path / "test").mkdir()
    with pytest.raises(ShardError, match=r"meta\.json is missing"):
        server_shard(str(tmp_path))


def test_each_class_gives_its_share():
    """Of 10, 4 and 1 rows a half is 5, 2 and round(0.5) = 0."""
    labels = np.repeat([0, 1, 2], [10, 4, 1])
    validation, test = split_rows(labels, 0.5)
    assert np.bincount(labels[validation], minlength=3).tolist() == [5, 2, 0]
    assert np.bincount(labels[test], minlength=3).tolist() == [5, 2, 1]
    assert sorted([*validation, *test]) == list(range(15))
    assert validation.tolist() == sorted(validation)


def test_the_split_is_always_the_same():
    labels = np.arange(100) % 4
    first, again = (split_rows(labels, 0.3)[0].tolist() for _ in range(2))
    assert first == again


def test_parts_of_a_shard_hold_its_rows(blobs: Path):
    shard = open_shard(blobs / "test")
    validation, test = split_shard(shard, 0.25)
    assert validation is not None
    assert abs(len(validation) - 75) <= 1
    ids = [*validation.image_ids, *test.image_ids]
    assert sorted(ids) == list(range(300))
    for part in (validation, test):
        tokens, labels = part.batch(slice(None))
        expected_tokens, expected_labels = shard.batch(part.image_ids)
        np.testing.assert_array_equal(tokens, expected_tokens)
        np.testing.assert_array_equal(labels, expected_labels)


def test_without_a_share_the_shard_is_the_test_part(blobs: Path):
    shard = open_shard(blobs / "test")
    validation, test = split_shard(shard, 0.0)
    assert validation is None
    assert test is shard


@pytest.mark.parametrize(("share", "left"), [(0.001, "0 for validation and 300"), (0.999, "300")])
def test_a_part_without_examples_is_refused(blobs: Path, share, left):
    with pytest.raises(SettingsError, match=f"^'validation-share' is {share}, .*leaves {left}"):
        split_shard(open_shard(blobs / "test"), share)


def test_a_head_is_scored_on_the_validation_part_alone(blobs: Path):
    """A head that always says class 0 is right as often as there are examples of it."""
    validation, _ = split_shard(open_shard(blobs / "test"), 0.3)
    score = score_on(validation)
    assert validation is not None
    assert score is not None
    head = {"fc1.weight": np.zeros((3, 12), np.float32), "fc1.bias": np.float32([1, 0, 0])}
    assert score(head) == np.mean(validation.labels == 0)
    assert score_on(None) is None


@pytest.fixture
def config(blob_config: MakeConfig) -> dict[str, Any]:
    """A run of two quick rounds whose model differs from what is trained in all ways there are."""
    return blob_config(
        num_rounds=2,
        local_steps=2,
        hidden_width=8,
        validation_share=0.3,
        standardize=True,
        lda_skip=True,
    )


def test_the_net_is_made_once_a_round(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Of the initial model too, which is evaluated, though only its checkpoint is written."""
    made: list[dict[str, np.ndarray]] = []
    fold = WarmStart.net

    def counted(start: WarmStart, weights: Any) -> Any:
        made.append(fold(start, weights))
        return made[-1]

    monkeypatch.setattr(WarmStart, "net", counted)
    run_in_process(server_app, client_app, 4, config)
    assert len(made) == 3
    folder = Path(config["output-dir"])
    written = load_file(folder / "model.safetensors")
    assert written.keys() - made[-1].keys() == {"skip.weight", "skip.bias"}
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
    logits = ensemble_of(weights, strategy.assignment.fixed_cuts(2))(tokens)
    assert found == {"ensemble_accuracy": (logits.argmax(axis=1) == labels).mean()}


def test_others_have_no_averaged_logits(blobs):
    parts = {"ensemble_accuracy": open_shard(blobs / "test")}
    assert ensemble_accuracies(FedAvg(), 2, {}, parts) == {}
    assert ensemble_accuracies(SubmodelStrategy(AXES, scheme="ist"), 2, {}, parts) == {}
