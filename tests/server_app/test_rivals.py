"""What a sub-model has to beat: closed forms, and FedAvg on nets with as few bytes as a slice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_app.statistics import shard_statistics
from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.classifier.features import RandomFeatures
from flower_ist.statistics.lda import lda_heads
from flower_ist.statistics.ridge import RidgePath, ridge_head
from flower_ist.statistics.sums import Statistics
from flower_ist.tokens.shard import open_shard
from server_app.evaluation import score_on, split_shard
from tests.fakes.apps import run_and_read

MakeConfig = Callable[..., dict[str, Any]]
Arrays = dict[str, np.ndarray]


def summed(blobs: Path, features: RandomFeatures | None = None) -> Statistics:
    """Return the sums over four clients' tokens."""
    shards = [open_shard(blobs / f"client-{k}") for k in range(4)]
    return Statistics.total([shard_statistics(s, gram=True, features=features) for s in shards])


def assert_close(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-4, atol=1e-5)


def test_lda_is_that_of_all_tokens(blob_config: MakeConfig, blobs: Path):
    """Its clients send 3 counts, 36 sums and 12 x 13 / 2 numbers, in 8 bytes each."""
    lines, model = run_and_read(blob_config(strategy="lda", num_rounds=1, ridge_penalties="3"))
    assert lines[1]["payload_bytes_up"] == 4 * 8 * (3 + 36 + 78)
    head = lda_heads(summed(blobs), [3.0])[0]
    assert_close(model, head)
    assert lines[1]["accuracy"] == evaluate_arrays(head, open_shard(blobs / "test"))[0]


def test_lda_takes_the_penalty_that_is_best_on_validation_data(
    blob_config: MakeConfig, blobs: Path
):
    options = {"validation_share": 0.3, "ridge_penalties": "1e6,1"}
    config = blob_config(strategy="lda", num_rounds=1, **options)
    validation, _ = split_shard(open_shard(blobs / "test"), 0.3)
    score = score_on(validation)
    assert score is not None
    worse, better = lda_heads(summed(blobs), [1e6, 1.0])
    assert score(worse) < score(better)
    _, model = run_and_read(config)
    assert_close(model, better)


def test_ridge_features_is_ridge_on_the_features_of_all_tokens(
    blob_config: MakeConfig, blobs: Path
):
    """As many features as numbers in a token: 3 counts, 3 x 24 sums and 24 x 25 / 2 numbers."""
    options = {"strategy": "ridge-features", "num_rounds": 1, "ridge_penalties": "3", "seed": 5}
    lines, model = run_and_read(blob_config(**options))
    assert lines[1]["payload_bytes_up"] == 4 * 8 * (3 + 72 + 300)
    features = RandomFeatures.draw(5, 12, 12)
    head = ridge_head(RidgePath.of(summed(blobs, features)).solve(3.0))
    assert_close(model, features.fold(head))


def test_ridge_features_takes_the_penalty_that_is_best_on_validation_data(blob_config: MakeConfig):
    """The head is for features, the validation data are tokens."""
    options = {"strategy": "ridge-features", "num_rounds": 1, "validation_share": 0.3}
    several, good = (
        run_and_read(blob_config(**options, ridge_penalties=p))[1] for p in ("1e9,1", "1")
    )
    assert_close(several, good)


@pytest.mark.parametrize("standardize", [False, True])
def test_fedavg_features_sends_the_last_layer_alone(
    blob_config: MakeConfig, blobs: Path, standardize: bool
):
    """A head of 3 classes on 12 numbers and 20 features has 3 x 32 + 3 = 99 numbers; mean and
    spread of the tokens, which come once, 2 x 12. The net's other layer is drawn, not sent."""
    options = {"strategy": "fedavg-features", "hidden_width": 20, "standardize": standardize}
    lines, model = run_and_read(blob_config(**options))
    most = 4 * 24 + 1 if standardize else 0  # compressed, and a byte says how
    for server_round, line in enumerate(lines[1:], 1):
        for client in line["clients"].values():
            once = client["payload_bytes_down"] - 4 * 99
            assert 0.75 * most <= once <= most if server_round == 1 else once == 0
            assert client["payload_bytes_up"] == 4 * 99
    shard = open_shard(blobs / "test")
    assert {name: tensor.shape for name, tensor in model.items()} == {
        "fc1.weight": (20 + 24, 12),
        "fc1.bias": (44,),
        "fc2.weight": (3, 44),
        "fc2.bias": (3,),
    }
    assert evaluate_arrays(model, shard) == (lines[-1]["accuracy"], lines[-1]["loss"])
    if standardize:
        return
    drawn = RandomFeatures.draw(0, 20, 12)
    assert model["fc1.weight"][:20].tobytes() == drawn.weight.tobytes()
    # The head that was trained, on the features themselves, says the same.
    head = np.concatenate([model["fc2.weight"][:, 20:32], model["fc2.weight"][:, :20]], axis=1)
    tokens, labels = shard.batch(slice(None))
    logits = drawn.of(tokens) @ head.T + model["fc2.bias"]
    assert (logits.argmax(axis=1) == labels).mean() == lines[-1]["accuracy"]
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    assert losses.mean() == pytest.approx(lines[-1]["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        # 12 x 8 + 8 + 8 x 3 + 3, and 8 x 8 + 8 more.
        ({"hidden_layers": 1}, 131),
        ({"hidden_layers": 2, "cut": "alternate"}, 203),
        ({"hidden_layers": 2, "cut": "all"}, 203),
    ],
)
def test_fedavg_narrow_sends_as_many_bytes_as_a_slice(
    blob_config: MakeConfig, options: dict[str, Any], numbers: int
):
    for strategy in ("ist", "fedavg-narrow"):
        config = blob_config(strategy=strategy, num_slices=4, hidden_width=32, **options)
        for line in run_and_read(config)[0][1:]:
            for client in line["clients"].values():
                sent = client["payload_bytes_down"], client["payload_bytes_up"]
                assert sent == (4 * numbers, 4 * numbers)


@pytest.mark.parametrize(
    ("options", "coverage"),
    [
        ({"hidden_layers": 2, "cut": "alternate"}, 1.0),
        ({"hidden_layers": 1}, 1.0),
        # Of 32 x 32 weights in the middle a quarter: 1,571 - 768 of 1,571.
        ({"hidden_layers": 2, "cut": "all"}, 803 / 1571),
    ],
)
def test_a_round_trains_every_weight_where_none_is_cut_on_both_sides(
    blob_config: MakeConfig, options: dict[str, Any], coverage: float
):
    """12-32-32-3 has 12 x 32 + 32 + 32 x 32 + 32 + 32 x 3 + 3 = 1,571 weights."""
    lines, _ = run_and_read(blob_config(num_slices=4, hidden_width=32, num_rounds=1, **options))
    assert lines[1]["coverage"] == pytest.approx(coverage)
