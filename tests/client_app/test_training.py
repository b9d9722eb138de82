"""Local training: which batches, how many steps, how far a step goes, and settings of no use."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client_app import batches as batches_module
from client_app import training
from client_app.batches import Batches
from client_app.local_settings import LocalSettings
from client_app.training import train
from flower_ist.classifier.gradient import loss_and_gradient
from flower_ist.classifier.mlp import initial_weights
from flower_ist.tokens.shard import TokenShard
from tests.fakes.shards import make_meta

CONFIG = {
    "server-round": 2,
    "local-steps": 3,
    "batch-size": 4,
    "learning-rate": 0.01,
    "seed": 7,
}


def settings(**changes: Any) -> LocalSettings:
    values = {**CONFIG, **{key.replace("_", "-"): value for key, value in changes.items()}}
    return LocalSettings.from_config(ConfigRecord(values))


def shard_of(count: int, first_label: int = 0) -> TokenShard:
    """Make a shard whose row i holds (i, 1); labels are 0 and 1 in turn."""
    rows = np.arange(count)
    return TokenShard(
        meta=make_meta(num_examples=count, dim=2, token_dtype="float32"),
        tokens=np.stack([rows, np.ones(count)], axis=1).astype(np.float32),
        labels=((rows + first_label) % 2).astype(np.int32),
        image_ids=rows,
    )


def net(*dims: int) -> dict[str, NDArray[np.float32]]:
    return initial_weights(dims, seed=0)


@given(
    count=st.integers(1, 30),
    steps=st.integers(0, 12),
    size=st.integers(1, 9),
    seed=st.integers(0, 2**63 - 1),
)
def test_batches_are_whole_epochs_one_after_the_other(count, steps, size, seed):
    chosen = settings(local_steps=steps, batch_size=size, seed=seed)
    rows = Batches(shard_of(count), chosen, "a").order()
    assert len(rows) == steps * size
    for start in range(0, len(rows), count):
        epoch = rows[start : start + count].tolist()
        assert len(set(epoch)) == len(epoch)
        assert all(0 <= row < count for row in epoch)
        if len(epoch) == count:
            assert sorted(epoch) == list(range(count))


def test_the_order_follows_from_seed_round_and_client_only():
    shard = shard_of(50)

    def order(client: str = "a", **changes: Any) -> list[int]:
        return Batches(shard, settings(**{"local_steps": 10, **changes}), client).order().tolist()

    assert order() == order() == order(learning_rate=0.5, lr_scales='{"a": 2.0}')
    # The same rows, cut into other batches.
    assert order() == order(local_steps=8, batch_size=5)
    others = [order("b"), order(seed=8), order(server_round=3)]
    assert all(other != order() for other in others)
    assert order(local_steps=5) == order()[:20]


def test_every_epoch_has_a_new_order():
    rows = Batches(shard_of(20), settings(local_steps=10, batch_size=4), "a").order()
    assert rows[:20].tolist() != rows[20:].tolist()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.float32]]:
    """The tokens of each step that is trained on."""
    steps = []

    def noting(layers: Any, gradients: Any, tokens: NDArray[np.float32], *rest: Any) -> float:
        steps.append(tokens)
        return loss_and_gradient(layers, gradients, tokens, *rest)

    monkeypatch.setattr(training, "loss_and_gradient", noting)
    return steps


@pytest.mark.parametrize("dims", [(2, 2), (2, 9, 2), (2, 4, 4, 2)])
@pytest.mark.parametrize("decoded_bytes", [0, 1 << 20])
def test_any_net_sees_the_same_batches(dims, decoded_bytes, seen, monkeypatch):
    """Whole model or slice, deep or flat, decoded once or read by blocks: in the order above."""
    monkeypatch.setattr(batches_module, "_DECODED_BYTES", decoded_bytes)
    chosen = settings(local_steps=40)
    train(net(*dims), Batches(shard_of(11), chosen, "a"))
    rows = np.concatenate(seen)[:, 0]
    assert rows.tolist() == Batches(shard_of(11), chosen, "a").order().tolist()


@pytest.mark.parametrize("steps", [0, 1, 15, 16, 17, 33])
def test_steps_are_counted_exactly(steps, seen, monkeypatch):
    """Rows are read for 16 batches at once: one step more or less would show around 16."""
    stepped = []

    class CountingAdam(training.Adam):
        def step(self, gradient: NDArray[Any]) -> None:
            stepped.append(1)
            super().step(gradient)

    monkeypatch.setattr(training, "Adam", CountingAdam)
    train(net(2, 3, 2), Batches(shard_of(10), settings(local_steps=steps), "a"))
    assert len(stepped) == steps
    assert [len(tokens) for tokens in seen] == [4] * steps


def zeros() -> dict[str, NDArray[np.float32]]:
    return {"fc1.weight": np.zeros((2, 2), np.float32), "fc1.bias": np.zeros(2, np.float32)}


def test_a_scale_multiplies_the_step_of_its_tensor_alone():
    """From zero weights softmax gives 1/2 each, so with label 0 and x = (0, 1) the gradients are
    -1/2 and 1/2 for the bias and the second column, 0 for the first. Adam's first step is the
    learning rate against the gradient's sign, whatever its size: 0.01, and 4 x 0.01 with scale 4.
    """
    scales = json.dumps({"fc1.weight": 4.0})
    chosen = settings(local_steps=1, batch_size=1, lr_scales=scales)
    found, _ = train(zeros(), Batches(shard_of(1), chosen, "a"))
    np.testing.assert_allclose(found["fc1.weight"], [[0, 0.04], [0, -0.04]], rtol=1e-6)
    np.testing.assert_allclose(found["fc1.bias"], [0.01, -0.01], rtol=1e-6)


def test_adam_starts_afresh_every_round():
    """The second round has the other label: a fresh first step goes all the way back to zero.

    With the first round's moments it would be 0.053 of that.
    """
    model = zeros()
    chosen = settings(local_steps=1, batch_size=1)
    for label, bias in ((0, 0.01), (1, 0.0)):
        model, _ = train(model, Batches(shard_of(1, first_label=label), chosen, "a"))
        np.testing.assert_allclose(model["fc1.bias"], [bias, -bias], atol=1e-8)


def test_loss_is_the_mean_over_the_steps():
    """With a learning rate of 0 every step's loss is log 2, and no weight moves."""
    chosen = settings(local_steps=5, learning_rate=0)
    model, loss = train(zeros(), Batches(shard_of(9), chosen, "a"))
    assert loss == pytest.approx(math.log(2))
    assert not any(array.any() for array in model.values())
    assert train(model, Batches(shard_of(9), settings(local_steps=0), "a"))[1] == 0.0


def test_training_lowers_the_loss():
    batches = Batches(shard_of(2), settings(local_steps=50, learning_rate=0.05), "a")
    model, first = train(net(2, 16, 2), batches)
    _, second = train(model, batches)
    assert second < first / 2


def test_the_proximal_term_by_hand():
    """Zero weights, label 0, x = (0, 1). The first step, of 0.01, starts at the sent weights, where
    the term has no gradient. At bias (0.01, -0.01) and column (0.01, -0.01) the logits are
    +-0.02, so the loss has gradient p - 1 = -0.49 for class 0; mu = 100 adds 100 * 0.01 = 1.
    Their sum 0.51 turns Adam back: m = 0.9 * -0.05 + 0.1 * 0.51 > 0, below 0 without the term.
    """
    biases = {}
    for mu in (0.0, 100.0):
        chosen = settings(local_steps=2, batch_size=1, proximal_mu=mu)
        biases[mu] = train(zeros(), Batches(shard_of(1), chosen, "a"))[0]["fc1.bias"]
    gradients = np.array([-0.5, -1 / (1 + math.exp(0.04)) + 1.0])
    m = (0.9 * 0.1 * gradients[0] + 0.1 * gradients[1]) / (1 - 0.9**2)
    v = (0.999 * 0.001 * gradients[0] ** 2 + 0.001 * gradients[1] ** 2) / (1 - 0.999**2)
    step = 0.01 * m / math.sqrt(v)
    np.testing.assert_allclose(biases[100.0], [0.01 - step, step - 0.01], rtol=1e-5)
    assert biases[100.0][0] < 0.01 < biases[0.0][0]


def test_no_proximal_term_is_no_change():
    found = []
    for changes in ({}, {"proximal_mu": 0.0}):
        chosen = settings(local_steps=5, **changes)
        model, loss = train(net(2, 5, 2), Batches(shard_of(9), chosen, "a"))
        found.append((loss, *(array.tobytes() for array in model.values())))
    assert found[0] == found[1]


def test_the_proximal_term_is_not_in_the_loss_that_is_reported():
    """With a rate of 0 it is 0 anyway; after one step it would be 50 * 4 * 0.01^2 = 0.02."""
    chosen = settings(local_steps=2, batch_size=1, proximal_mu=100.0)
    expected = (math.log(2) + math.log(1 + math.exp(-0.04))) / 2
    _, loss = train(zeros(), Batches(shard_of(1), chosen, "a"))
    assert loss == pytest.approx(expected, abs=1e-5)


def test_an_offset_is_added_to_the_logits():
    """Rate 0, label 0, offset (log 3, 0) for every example: the loss is -log 3/4."""

    def offset(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.repeat(np.array([[math.log(3)], [0]], np.float32), len(tokens), axis=1)

    chosen = settings(local_steps=2, batch_size=3, learning_rate=0)
    _, loss = train(zeros(), Batches(shard_of(1), chosen, "a"), offset=offset)
    assert loss == pytest.approx(-math.log(3 / 4))


@pytest.mark.parametrize("rate", [1e30, 3e38])
@pytest.mark.parametrize("mu", [0.0, 1e30])
def test_a_net_that_diverges_says_so_by_its_numbers(rate, mu):
    """Warnings are errors in these tests: there are none, and the round comes to its end."""
    chosen = settings(local_steps=40, learning_rate=rate, proximal_mu=mu)
    trained, loss = train(net(2, 6, 6, 2), Batches(shard_of(11), chosen, "a"))
    assert not math.isfinite(loss)
    assert not all(np.isfinite(array).all() for array in trained.values())


def test_what_came_is_left_as_it_is_and_may_be_read_only():
    arrays = net(2, 6, 2)
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    trained, _ = train(arrays, Batches(shard_of(9), settings(), "a"))
    assert list(trained) == list(arrays)
    for name, array in trained.items():
        assert arrays[name].tobytes() == before[name].tobytes() != array.tobytes()
        assert array.dtype == np.float32


@pytest.mark.parametrize("dims", [(3, 4, 2), (2, 4, 1), (2, 1)])
def test_a_net_for_other_tokens_or_fewer_classes_is_refused(dims):
    with pytest.raises(ValueError, match=r"^The net that came tells .* needs another shard\.$"):
        train(net(*dims), Batches(shard_of(9), settings(), "a"))


@pytest.mark.parametrize("value", ["5", -1, True, math.nan, math.inf])
def test_a_proximal_weight_of_no_use_is_refused(value):
    with pytest.raises(ValueError, match=r"^The server sent 'proximal-mu' as .* is needed\.$"):
        settings(proximal_mu=value)


def test_settings_are_read_from_the_message():
    assert settings(proximal_mu=0.5).proximal_mu == 0.5
    assert settings(lr_scales='{"fc3.weight": 2}') == LocalSettings(
        server_round=2,
        local_steps=3,
        batch_size=4,
        learning_rate=0.01,
        seed=7,
        lr_scales={"fc3.weight": 2.0},
    )
    assert settings().lr_scales == {}


@pytest.mark.parametrize("key", list(CONFIG))
@pytest.mark.parametrize("value", [None, "5", -1, True, math.nan, math.inf, [1]])
def test_settings_of_no_use_are_refused_by_name(key, value):
    config = {**CONFIG, key: value}
    if value is None:
        del config[key]
    with pytest.raises(ValueError, match=f"^The server sent '{key}' as .* is needed.$"):
        LocalSettings.from_config(ConfigRecord(config))


@pytest.mark.parametrize(("key", "value"), [("local-steps", 1.5), ("seed", 0.0), ("batch-size", 0)])
def test_whole_numbers_are_not_rounded(key, value):
    with pytest.raises(ValueError, match=f"'{key}' as {value}: a whole number of at least"):
        LocalSettings.from_config(ConfigRecord({**CONFIG, key: value}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "2", "null", '{"a": -1}', '{"a": NaN}', '{"a": "2"}', '{"a": null}']
)
def test_scales_of_no_use_are_refused(text):
    with pytest.raises(ValueError, match=r"^The server sent .*lr-scales.* is needed\.$"):
        settings(lr_scales=text)
