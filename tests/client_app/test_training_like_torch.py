"""A round, and ten, on the demo's tokens: the same as with torch's net, loss and Adam.

Float32 rounds; over many steps the rounding of two programs leads to two nets, of which neither is
the right one. So arrays are compared after one round, and accuracies after ten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from client_app import app as client
from client_app.batches import Batches
from client_app.local_settings import LocalSettings
from client_app.training import train
from flower_ist.classifier.mlp import initial_weights
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.tokens.demo import train_shard
from server_app.app import app as server_app
from tests.fakes.torch_mlp import torch_train


def like_torch(
    arrays: Mapping[str, NDArray[Any]], batches: Batches
) -> tuple[dict[str, NDArray[Any]], float]:
    settings = batches.settings
    return torch_train(
        arrays,
        batches,
        rate=settings.learning_rate,
        lr_scales=settings.lr_scales,
        mu=settings.proximal_mu,
    )


@pytest.mark.parametrize("hidden", [(), (74,), (64, 64), (64, 48, 32)])
@pytest.mark.parametrize(("mu", "scales"), [(0.0, {}), (0.5, {"fc1.bias": 0.5, "fc2.weight": 4.0})])
def test_a_round_changes_the_weights_as_torch_does(hidden, mu, scales):
    """Within 1e-4 of the change, in the L2 norm over all weights, after 100 steps.

    The median of three clients: now and then rounding decides whether a ReLU lets an example pass,
    and from then on there are two nets. In float64 no such thing happens (test_gradient.py).
    """
    found = []
    for seed in range(3):
        shard = train_shard(seed, 3)
        config = {
            "server-round": 1,
            "local-steps": 100,
            "batch-size": 64,
            "learning-rate": 5e-4,
            "seed": seed,
            "proximal-mu": mu,
            "lr-scales": json.dumps(scales),
        }
        arrays = initial_weights([shard.meta.dim, *hidden, shard.meta.num_classes], seed)
        batches = Batches(shard, LocalSettings.from_config(ConfigRecord(config)), "a")
        (ours, loss), (theirs, their_loss) = train(arrays, batches), like_torch(arrays, batches)
        assert loss == pytest.approx(their_loss, rel=1e-4)
        change, difference = (
            np.concatenate([np.ravel(ours[name] - other[name]) for name in arrays])
            for other in (arrays, theirs)
        )
        found.append(np.linalg.norm(difference) / np.linalg.norm(change))
    assert np.median(found) < 1e-4


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_ten_rounds_reach_torch_s_accuracy(strategy, default_run_config, tmp_path, monkeypatch):
    """Within 0.1 points, as the mean over the rounds; standardized, with replay, int8 both ways."""
    accuracies = []
    for name, function in {"ours": train, "theirs": like_torch}.items():
        monkeypatch.setattr(client, "train", function)
        run: Path = tmp_path / name
        config = {
            **default_run_config,
            "strategy": strategy,
            "hidden-width": 128,
            "local-epochs": 2.0,
            "node-timeout": 0.0,
            "output-dir": str(run),
        }
        run_in_process(server_app, client.app, 4, config)
        accuracies.append([line["accuracy"] for line in read_run(run)[1:]])
    ours, theirs = np.array(accuracies)
    assert len(ours) == 10
    assert theirs[-1] > 0.75
    assert abs(np.mean(ours - theirs)) < 0.001
