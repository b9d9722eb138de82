"""A round's batches with a prior: standardized, and filled up with what the client lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st

from client_app.batches import Batches
from client_app.local_settings import LocalSettings
from client_app.training import train
from flower_ist.classifier.mlp import initial_weights, layers_of, logits
from flower_ist.statistics.gaussians import ClassGaussians
from flower_ist.statistics.prior import TokenPrior
from flower_ist.tokens.shard import TokenShard
from tests.fakes.shards import make_meta

CONFIG = {"server-round": 2, "local-steps": 3, "batch-size": 4, "learning-rate": 0.01, "seed": 7}
MEAN, SPREAD = np.array([1, 2], np.float32), np.array([2, 4], np.float32)


def settings(**changes: Any) -> LocalSettings:
    values = {**CONFIG, **{key.replace("_", "-"): value for key, value in changes.items()}}
    return LocalSettings.from_config(ConfigRecord(values))


def shard_of(labels: list[int]) -> TokenShard:
    """Make a shard whose row i holds (i, -i)."""
    rows = np.arange(len(labels))
    return TokenShard(
        meta=make_meta(num_examples=len(labels), dim=2, token_dtype="float32"),
        tokens=np.stack([rows, -rows], axis=1).astype(np.float32),
        labels=np.array(labels, np.int32),
        image_ids=rows,
    )


def prior_of(shares: list[float]) -> TokenPrior:
    """Make a prior whose virtual tokens of class c are exactly (100 + c, 100 + c)."""
    count = len(shares)
    means = np.repeat(100 + np.arange(count), 2).reshape(count, 2).astype(np.float32)
    factor = np.zeros((2, 2), np.float32)
    gaussians = ClassGaussians(np.array(shares, np.float32), means, factor, np.zeros(2, np.float32))
    return TokenPrior(MEAN, SPREAD, gaussians)


Batch = tuple[np.ndarray, np.ndarray]


def virtual(batch: Batch) -> np.ndarray:
    return np.asarray(batch[0][:, 0] >= 90)


def same(left: list[Batch], right: list[Batch]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(np.array_equal(a, c) and np.array_equal(b, d) for (a, b), (c, d) in pairs)


@pytest.mark.parametrize(
    ("labels", "size", "virtual_per_batch"),
    [
        # Shares of the whole: 1/2, 1/4, 1/4. The client's: (1, 0, 0), so v = 1/2.
        ([0] * 8, 8, 4),
        ([0] * 8, 3, 2),  # 1.5, to the even number
        ([0] * 8, 1, 0),  # at least one example is real
        # (1/2, 1/2, 0): v = 1/4.
        ([0, 1], 8, 2),
        # (0, 0, 1): v = 3/4.
        ([2], 8, 6),
        ([2], 2, 1),  # 1.5 would be 2
        # As the whole: v = 0.
        ([0, 1, 2, 0], 8, 0),
    ],
)
def test_virtual_examples_by_hand(labels, size, virtual_per_batch):
    batches = Batches(shard_of(labels), settings(batch_size=size), "a", prior_of([0.5, 0.25, 0.25]))
    assert batches.virtual_per_batch == virtual_per_batch
    assert batches.real_per_batch == size - virtual_per_batch
    assert [int(virtual(batch).sum()) for batch in batches] == [virtual_per_batch] * 3


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    whole=st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any),
    steps=st.integers(0, 35),
    size=st.integers(1, 9),
    seed=st.integers(0, 2**63 - 1),
)
def test_batches_are_whole_real_where_they_say_so_and_virtual_where_it_lacks(
    labels, whole, steps, size, seed
):
    shard = shard_of(labels)
    prior = prior_of([count / sum(whole) for count in whole])
    assert prior.gaussians is not None
    chosen = settings(local_steps=steps, batch_size=size, seed=seed)
    batches = Batches(shard, chosen, "a", prior)
    _, lacking = prior.gaussians.shortfall(np.bincount(labels, minlength=4))
    real = batches.real_per_batch
    assert 1 <= real <= size
    order = batches.order()
    assert len(order) == steps * real
    found = list(batches)
    assert len(found) == steps
    for step, (tokens, classes) in enumerate(found):
        assert tokens.shape == (size, 2)
        assert classes.shape == (size,)
        assert (tokens.dtype, classes.dtype) == (np.float32, np.int64)
        rows = order[step * real : (step + 1) * real]
        np.testing.assert_allclose(tokens[:real], (shard.tokens[rows] - MEAN) / SPREAD)
        np.testing.assert_array_equal(classes[:real], shard.labels[rows])
        made_up = classes[real:]
        np.testing.assert_array_equal(tokens[real:, 0], 100 + made_up)
        assert (lacking[made_up] > 0).all()


def test_one_class_is_filled_up_in_the_proportions_of_the_whole():
    """A client of class 0 alone, of shares (1/2, 3/8, 1/8): half is virtual, with 3 of 4 in class 1
    and 1 of 4 in class 2. Of 4,000 draws that is 3,000 +- 27; six of these are allowed."""
    shard, prior = shard_of([0] * 5), prior_of([0.5, 0.375, 0.125])
    chosen = settings(local_steps=400, batch_size=20)
    labels = np.concatenate([batch[1] for batch in Batches(shard, chosen, "a", prior)])
    counts = np.bincount(labels)
    assert counts[0] == 4000
    assert abs(counts[1] - 3000) < 165
    assert counts.sum() == 8000


def test_batches_follow_from_seed_round_and_client_only():
    shard, prior = shard_of([0, 0, 0, 1]), prior_of([0.2, 0.4, 0.4])

    def made(client: str = "a", **changes: Any) -> list[Batch]:
        options = {"local_steps": 20, "batch_size": 8, **changes}
        return list(Batches(shard, settings(**options), client, prior))

    assert same(made(), made(learning_rate=0.5))
    # Rows are read for 16 batches at once: what comes later changes nothing of what came before.
    assert same(made()[:16], made(local_steps=16))
    for other in (made("b"), made(seed=8), made(server_round=3)):
        assert not same(made(), other)
    batches = Batches(shard, settings(), "a", prior)
    assert same(list(batches), list(batches))


def test_virtual_tokens_are_new_in_each_batch_round_and_client():
    factor = np.eye(2, dtype=np.float32)
    gaussians = ClassGaussians(
        np.array([0, 1], np.float32), np.zeros((2, 2), np.float32), factor, np.zeros(2, np.float32)
    )
    prior = TokenPrior(MEAN, SPREAD, gaussians)

    def drawn(client: str = "a", **changes: Any) -> np.ndarray:
        chosen = settings(local_steps=40, **changes)
        batches = Batches(shard_of([0] * 3), chosen, client, prior)
        return np.concatenate([batch[0][1:] for batch in batches])

    everything = np.concatenate([drawn(), drawn("b"), drawn(seed=8), drawn(server_round=3)])
    assert len(np.unique(everything, axis=0)) == len(everything) == 4 * 120


@pytest.mark.parametrize("replay", [True, False])
def test_without_skew_the_batches_are_the_client_s_own(replay):
    """Standardized, and otherwise those of a run without a prior."""
    shard = shard_of([0, 1, 1, 0])
    prior = prior_of([0.5, 0.5])
    prior = prior if replay else TokenPrior(MEAN, SPREAD)
    plain = list(Batches(shard, settings(local_steps=20), "a"))
    found = list(Batches(shard, settings(local_steps=20), "a", prior))
    for (tokens, labels), (own, own_labels) in zip(found, plain, strict=True):
        np.testing.assert_allclose(tokens, (own - MEAN) / SPREAD)
        assert np.array_equal(labels, own_labels)


def test_the_shard_is_not_changed():
    shard, prior = shard_of([0, 0, 1]), prior_of([0.3, 0.7])
    before = shard.tokens.copy(), shard.labels.copy()
    list(Batches(shard, settings(local_steps=20), "a", prior))
    np.testing.assert_array_equal(shard.tokens, before[0])
    np.testing.assert_array_equal(shard.labels, before[1])


def test_training_sees_virtual_classes():
    """A client of class 0 alone keeps the other class' neuron alive only with virtual examples."""
    shard, prior = shard_of([0] * 6), prior_of([0.5, 0.5])
    chosen = settings(local_steps=60, batch_size=8, learning_rate=0.05)

    def accuracy_of_virtual_tokens(given: TokenPrior | None) -> float:
        net, _ = train(initial_weights([2, 8, 2], seed=0), Batches(shard, chosen, "a", given))
        scores = logits(layers_of(net), np.full((4, 2), 101.0, np.float32))
        return float((scores.argmax(axis=1) == 1).mean())

    assert accuracy_of_virtual_tokens(prior) == 1
    assert accuracy_of_virtual_tokens(TokenPrior(MEAN, SPREAD)) == 0
