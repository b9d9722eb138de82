"""What leaves a private client: exact clipping, noise of the stated size, and nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from client_app.app import app
from client_app.privacy import (
    PUBLIC_METRICS,
    Privacy,
    PrivacyError,
    clip,
    gaussian_noise,
    privatize,
)
from flower_ist.classifier.mlp import initial_weights
from flower_ist.grids.inprocess import InProcessGrid

SENT = {"w": np.array([[1.0, 2.0]], np.float32), "b": np.array([5.0], np.float32)}


def context(node: dict[str, Any] | None = None, run: dict[str, Any] | None = None) -> Context:
    return Context(1, 2, node or {}, RecordDict(), run or {})


def trained(*changes: float) -> dict[str, np.ndarray]:
    w = SENT["w"] + np.array([changes[:2]], np.float32)
    return {"w": w, "b": SENT["b"] + np.float32(changes[2])}


def test_clipping_by_hand():
    """A change of (2, 3, 6) has norm 7: clipped to 3.5 it is (1, 1.5, 3)."""
    found = privatize(SENT, trained(2, 3, 6), {}, Privacy(clip=3.5, noise=0))
    assert found["w"].tolist() == [[2.0, 3.5]]
    assert found["b"].tolist() == [8.0]


def test_a_change_within_the_bound_is_sent_as_it_is():
    """The norm is exactly 7."""
    found = privatize(SENT, trained(2, 3, 6), {}, Privacy(clip=7, noise=0))
    for name, tensor in trained(2, 3, 6).items():
        assert found[name].tobytes() == tensor.tobytes()


def test_the_norm_is_that_of_the_models_own_change():
    """w travels 4 times as large: its change of (8, 12) is one of (2, 3), the norm 7 as before."""
    found = privatize(SENT, trained(8, 12, 6), {"w": 4.0}, Privacy(clip=3.5, noise=0))
    assert found["w"].tolist() == [[1.0 + 4 * 1.0, 2.0 + 4 * 1.5]]
    assert found["b"].tolist() == [8.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_becomes_none(value):
    found = privatize(SENT, trained(value, 3, 6), {}, Privacy(clip=1, noise=0))
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in SENT.items()
    }


@given(
    st.lists(
        hnp.arrays(np.float64, hnp.array_shapes(max_dims=2, max_side=5)), min_size=1, max_size=3
    ),
    st.floats(1e-6, 1e6),
)
def test_no_update_is_longer_than_the_bound(arrays, norm):
    """Whatever the data led to: huge, tiny, infinite or no numbers."""
    clipped = clip({str(i): array for i, array in enumerate(arrays)}, norm)
    length = math.sqrt(sum(float(np.square(change).sum()) for change in clipped.values()))
    assert length <= norm * (1 + 1e-12)


def test_noise_has_the_stated_size():
    """400,000 draws: the standard error of the deviation is 1 / sqrt(2 n) = 0.11 %, of the mean
    1 / sqrt(n) = 0.16 % of it. A normal number is within 1, 2, 3 deviations with the chances below.
    """
    noise = gaussian_noise(400_001)
    assert noise.shape == (400_001,)
    assert noise.std() == pytest.approx(1, rel=0.006)
    assert abs(noise.mean()) < 0.008
    for deviations, chance in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert (np.abs(noise) < deviations).mean() == pytest.approx(chance, abs=0.004)
    assert abs(np.corrcoef(noise[:200_000], noise[200_000:400_000])[0, 1]) < 0.012


def test_every_owned_weight_gets_noise_of_z_times_c_on_the_models_scale():
    """C = 0.5 and z = 3: 1.5 on each weight, 6 on a tensor that travels 4 times as large."""
    shape = (200, 500)
    sent = {"w": np.ones(shape, np.float32), "v": np.zeros(shape, np.float32)}
    found = privatize(sent, sent, {"v": 4.0}, Privacy(clip=0.5, noise=3.0))
    assert (found["w"] - 1).std() == pytest.approx(1.5, rel=0.012)
    assert found["v"].std() == pytest.approx(6.0, rel=0.012)
    assert found["w"].dtype == np.float32


def test_noise_cannot_be_drawn_again():
    assert not np.array_equal(gaussian_noise(8), gaussian_noise(8))
    assert np.array_equal(*(gaussian_noise(8, lambda n: bytes(n)) for _ in range(2)))


def test_the_extreme_bytes_give_finite_noise():
    for byte in (b"\0", b"\xff"):
        assert np.isfinite(gaussian_noise(9, lambda count, byte=byte: byte * count)).all()


def test_whole_numbers_take_no_noise():
    counts = {"n": np.array([1, 2])}
    with pytest.raises(PrivacyError, match="'n' holds int64 numbers, which take no noise"):
        privatize(counts, counts, {}, Privacy(1, 1))


def test_the_device_decides_before_the_run():
    run = {"privacy-clip": 9.0, "privacy-noise": 0.0}
    assert Privacy.of(context()) is None
    assert Privacy.of(context(run=run)) == Privacy(9.0, 0.0)
    own = {"privacy-clip": 1, "privacy-noise": 20}
    assert Privacy.of(context(own, run)) == Privacy(1.0, 20.0)


@pytest.mark.parametrize(
    ("node", "run", "problem"),
    [
        ({"privacy-clip": 1.0}, {}, "gives 'privacy-clip' alone"),
        ({"privacy-noise": 1.0}, {"privacy-clip": 1.0}, "gives 'privacy-noise' alone"),
        ({}, {"privacy-clip": -1.0}, "'privacy-clip' is -1.0, but must be a number"),
        ({}, {"privacy-clip": "1"}, "'privacy-clip' is '1', but must be a number"),
        ({}, {"privacy-clip": True}, "'privacy-clip' is True"),
        ({}, {"privacy-clip": 1.0, "privacy-noise": math.nan}, "'privacy-noise' is nan"),
        ({}, {"privacy-clip": math.inf}, "'privacy-clip' is inf"),
        ({}, {"privacy-noise": 2.0}, "'privacy-clip' is 0: set both"),
    ],
)
def test_settings_of_no_use_are_refused(node, run, problem):
    with pytest.raises(PrivacyError, match=problem) as caught:
        Privacy.of(context(node, run))
    assert str(caught.value).endswith(".")


CONFIG = {
    "server-round": 1,
    "local-steps": 6,
    "batch-size": 10,
    "learning-rate": 0.01,
    "seed": 0,
}
WEIGHTS = initial_weights([12, 7, 3], seed=0)


def ask(blobs: Path, kind: str, config: dict[str, Any], **privacy: float) -> Message:
    run = {
        "data-dir": str(blobs),
        **{key.replace("_", "-"): value for key, value in privacy.items()},
    }
    grid = InProcessGrid(app, 2, run)
    arrays = ArrayRecord({name: Array(weight) for name, weight in WEIGHTS.items()})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord(config)})
    (reply,) = grid.send_and_receive([Message(content, list(grid.get_node_ids())[1], kind)])
    return reply


def test_a_private_reply_holds_the_clipped_update_and_public_metrics(blobs):
    reply = ask(blobs, "train", CONFIG, privacy_clip=0.125, privacy_noise=0.0)
    arrays = reply.content.array_records["arrays"]
    squares = [np.square(a.numpy() - WEIGHTS[n], dtype=np.float64).sum() for n, a in arrays.items()]
    # Training moves the weights much further; float32 rounds the answer.
    assert math.sqrt(sum(squares)) == pytest.approx(0.125, rel=1e-4)
    metrics = reply.content.metric_records["metrics"]
    assert set(metrics) == set(PUBLIC_METRICS)
    assert (metrics["num-examples"], metrics["examples-trained"]) == (61, 60)


def test_two_private_replies_to_one_message_differ(blobs):
    """The noise is not the run's: a server that knows the seed cannot take it out."""
    one, other = (
        ask(blobs, "train", CONFIG, privacy_clip=0.1, privacy_noise=1.0) for _ in range(2)
    )
    for name, array in one.content.array_records["arrays"].items():
        assert array.data != other.content.array_records["arrays"][name].data


@pytest.mark.parametrize(
    ("kind", "config", "asked_for"),
    [
        ("evaluate", CONFIG, "a model's accuracy"),
        ("train", {**CONFIG, "statistics": "class-sums"}, "sums over them"),
    ],
)
def test_a_private_client_answers_nothing_else(blobs, kind, config, asked_for):
    reply = ask(blobs, kind, config, privacy_clip=0.1, privacy_noise=1.0)
    assert reply.has_error()
    assert asked_for in str(reply.error.reason)
    assert not ask(blobs, "evaluate", CONFIG).has_error()
