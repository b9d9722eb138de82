"""The encoder that comes with the project, on real images that need no download."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from data_prep.encoders.open import open_encoder
from data_prep.encoders.settings import EncoderSettings
from data_prep.shards.prep import PrepSettings, prep
from data_prep.shards.probe import linear_probe, token_features
from flower_ist.tokens.shard import open_shard


def accuracy(source, out, weights):
    """Return the linear probe's test accuracy on half-masked tokens of a source."""
    prep(PrepSettings(str(source), out, weights=weights, clients=1, test_share=1 / 3))
    train, test = (open_shard(out / name) for name in ("client-0", "test"))
    return linear_probe(token_features([train]), token_features([test]), 10).test_accuracy


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels with values 0 to 16."""
    file = tmp_path_factory.mktemp("digits") / "digits.npz"
    data = load_digits()
    np.savez(file, x=(data.images * 255 / 16).round().astype(np.uint8), y=data.target)
    return file


def test_trained_weights_beat_random_ones_by_ten_points_on_images_of_another_kind(digits, tmp_path):
    trained = accuracy(digits, tmp_path / "trained", "")
    random = accuracy(digits, tmp_path / "random", "random")
    assert trained >= random + 0.10
    assert trained > 0.8


def test_it_is_small_and_says_what_it_is():
    encoder = open_encoder(EncoderSettings())
    record = encoder.record
    assert (record.image_size, record.patch_size, encoder.dim) == (28, 4, 128)
    assert "Fashion-MNIST" in record.name
    from data_prep.encoders.open import EMBEDDED

    assert EMBEDDED.stat().st_size <= 6_000_000
