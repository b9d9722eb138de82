"""A round, and ten, on the demo's tokens: the same as with torch's net, loss and Adam.

Float32 rounds; over many steps the rounding of two programs leads to two nets, of which neither is
the right one. So arrays are compared after one round, and accuracies after ten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from client_app import app as client
from client_app.batches import Batches
from client_app.local_settings import LocalSettings
from client_app.statistics import shard_statistics
from client_app.training import train
from flower_ist.classifier.mlp import initial_weights
from flower_ist.classifier.skip import LinearSkip
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.statistics.lda import lda_heads
from flower_ist.statistics.prior import FixedHead
from flower_ist.tokens.demo import train_shard
from flower_ist.tokens.shard import TokenShard
from server_app.app import app as server_app
from tests.fakes.torch_mlp import torch_train


def like_torch(
    arrays: Mapping[str, NDArray[Any]],
    batches: Batches,
    *,
    offset: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> tuple[dict[str, NDArray[Any]], float]:
    settings = batches.settings
    return torch_train(
        arrays,
        batches,
        rate=settings.learning_rate,
        lr_scales=settings.lr_scales,
        mu=settings.proximal_mu,
        offset=offset,
    )


def lda_of(shard: TokenShard) -> FixedHead:
    """Return the head of one shard's linear discriminant analysis."""
    skip = LinearSkip.of_head(lda_heads(shard_statistics(shard, gram=True), [10.0])[0])
    return FixedHead(skip.weight, skip.bias)


def test_the_net_learns_what_lda_leaves_over():
    """A net of zeros begins at the head's own loss instead of ln C, and training goes below it."""
    shard = train_shard(0, 3)
    head = lda_of(shard)
    dims = [shard.meta.dim, 32, shard.meta.num_classes]
    zeros = {name: 0 * weight for name, weight in initial_weights(dims, 0).items()}
    tokens, labels = shard.batch(slice(None))
    logits = head.of(tokens).T
    peak = logits.max(axis=1)
    logs = np.log(np.exp(logits - peak[:, None]).sum(axis=1)) + peak
    of_lda = float((logs - logits[np.arange(len(labels)), labels]).mean())
    config = {"local-steps": 200, "batch-size": 64, "learning-rate": 0.0, "seed": 0}

    def mean_loss(weights: Mapping[str, NDArray[Any]], offset: Any) -> float:
        """The mean over 200 batches, nothing being learnt from them."""
        settings = LocalSettings.from_config(ConfigRecord({**config, "server-round": 1}))
        return train(weights, Batches(shard, settings, "a"), offset=offset)[1]

    assert mean_loss(zeros, None) == pytest.approx(np.log(shard.meta.num_classes), rel=1e-5)
    assert mean_loss(zeros, head.of) == pytest.approx(of_lda, rel=0.02)
    learning = {**config, "learning-rate": 1e-3, "server-round": 1}
    batches = Batches(shard, LocalSettings.from_config(ConfigRecord(learning)), "a")
    trained, _ = train(initial_weights(dims, 0), batches, offset=head.of)
    assert mean_loss(trained, head.of) < 0.85 * of_lda
    # Alone it is worse than the head: what that knows it need not learn.
    assert mean_loss(trained, None) > of_lda


@pytest.mark.parametrize("hidden", [(), (74,), (64, 64), (64, 48, 32)])
@pytest.mark.parametrize(("mu", "scales"), [(0.0, {}), (0.5, {"fc1.bias": 0.5, "fc2.weight": 4.0})])
@pytest.mark.parametrize("has_head", [False, True])
def test_a_round_changes_the_weights_as_torch_does(hidden, mu, scales, has_head):
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
        offset = lda_of(shard).of if has_head else None
        ours, loss = train(arrays, batches, offset=offset)
        theirs, their_loss = like_torch(arrays, batches, offset=offset)
        assert loss == pytest.approx(their_loss, rel=1e-4)
        change, difference = (
            np.concatenate([np.ravel(ours[name] - other[name]) for name in arrays])
            for other in (arrays, theirs)
        )
        found.append(np.linalg.norm(difference) / np.linalg.norm(change))
    assert np.median(found) < 1e-4


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_ten_rounds_reach_torch_s_accuracy(strategy, default_run_config, tmp_path, monkeypatch):
    """Within 0.1 points, as the mean over the rounds; standardized, with replay, in compact."""
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
