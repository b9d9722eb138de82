"""The ensemble's accuracies: who has them, and that its slices are those that were trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from flower_ist.classifier.evaluate import ensemble_accuracies, ensemble_logits, fixed_slices
from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.strategies.submodel import SubmodelStrategy
from flower_ist.submodels.axes import mlp_axes
from flower_ist.tokens.shard import open_shard

DIMS = [12, 9, 8, 3]
AXES = mlp_axes(mlp_shapes(DIMS))


def sizes(slices: Any) -> list[dict[str, int]]:
    return [{width: len(rows) for width, rows in one.indices.items()} for one in slices]


@pytest.mark.parametrize(
    ("options", "clients", "expected"),
    [
        # 9 and 8 neurons in three slices: 3 each, and 3, 3, 2.
        ({}, 3, [{"h1": 3, "h2": 3}, {"h1": 3, "h2": 3}, {"h1": 3, "h2": 2}]),
        ({"num_slices": 1}, 3, [{"h1": 9, "h2": 8}]),
        ({}, 0, []),
        ({"capacities": [0.5, 0.25]}, 2, []),
        ({"scheme": "ist"}, 3, []),
        ({"scheme": "heterofl", "capacities": [0.5]}, 3, []),
    ],
)
def test_only_an_ensemble_has_slices_for_good(options, clients, expected):
    strategy = SubmodelStrategy(AXES, **{"scheme": "ist-fixed", **options})
    slices = fixed_slices(strategy, clients)
    assert sorted(sizes(slices), key=str) == sorted(expected, key=str)


def test_the_slices_are_those_that_the_strategy_draws_in_every_round():
    strategy = SubmodelStrategy(AXES, scheme="ist-fixed", seed=5)
    drawn = strategy.scheme.draw(5, 17, AXES.widths, [1.0] * 4)
    for one, other in zip(fixed_slices(strategy, 4), drawn, strict=True):
        assert all(np.array_equal(one.indices[width], other[width]) for width in AXES.widths)


def test_accuracies_are_of_the_averaged_logits(blobs):
    shard = open_shard(blobs / "test")
    weights = initial_weights(DIMS, seed=3)
    strategy = SubmodelStrategy(AXES, scheme="ist-fixed", seed=1)
    parts = {"ensemble_accuracy": shard, "ensemble_validation_accuracy": None}
    found = ensemble_accuracies(strategy, 2, weights, parts)
    tokens, labels = shard.batch(slice(None))
    logits = ensemble_logits(weights, fixed_slices(strategy, 2), tokens)
    assert found == {"ensemble_accuracy": (logits.argmax(axis=1) == labels).mean()}


def test_others_have_none(blobs):
    parts = {"ensemble_accuracy": open_shard(blobs / "test")}
    assert ensemble_accuracies(FedAvg(), 2, {}, parts) == {}
    assert ensemble_accuracies(SubmodelStrategy(AXES, scheme="ist"), 2, {}, parts) == {}
