import numpy as np
import pytest

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.shards.probe import linear_probe, pixel_features, token_features
from flower_ist.tokens.meta import Encoder, Mask, ShardMeta
from flower_ist.tokens.shard import TokenShard


def blobs(count, noise, seed):
    """Three classes around the corners of a triangle, in units far from 1, and a constant."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    corners = np.array([[0, 0], [0, 1], [1, 0]])[labels]
    features = (corners + noise * rng.normal(size=(count, 2))) * [1e-3, 1e3]
    return np.column_stack([features, np.full(count, 7)]).astype(np.float32), labels


def make_shard(image_ids, labels, **mask):
    count = len(image_ids)
    options = {"kind": "random", "ratio": 0.75, "seed": 3, "patches": 4, "kept": 1}
    meta = ShardMeta(
        num_examples=count,
        dim=2,
        class_names=("a", "b"),
        encoder=Encoder(name="v", weights_sha256="0", image_size=8, patch_size=4),
        mask=Mask(**(options | mask)),
        image_bytes=0,
        image_file_bytes=0,
        masked_image_bytes=0,
        token_dtype="float32",
    )
    return TokenShard(
        meta=meta,
        tokens=np.arange(2 * count, dtype=np.float32).reshape(count, 2),
        labels=np.array(labels, np.int32),
        image_ids=np.array(image_ids),
    )


def test_separable_classes_are_found_whatever_their_units():
    result = linear_probe(blobs(90, 0.05, 0), blobs(60, 0.05, 1), classes=3)
    assert result.test_accuracy == 1.0
    assert (result.train_examples, result.test_examples, result.dim) == (90, 60, 3)


def test_the_probe_is_deterministic_and_ignores_test_labels_when_it_chooses():
    train, test = blobs(90, 0.5, 0), blobs(60, 0.5, 1)
    first = linear_probe(train, test, classes=3)
    assert linear_probe(train, test, classes=3) == first
    other = linear_probe(train, (test[0], (test[1] + 1) % 3), classes=3)
    assert (other.l2, other.held_out_accuracy) == (first.l2, first.held_out_accuracy)
    assert 1 / 3 < first.test_accuracy < 1


def test_random_labels_stay_near_chance():
    """300 test labels of 3 classes: standard deviation .027; 5 of them are .14."""
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(300, 4)).astype(np.float32), rng.integers(0, 3, 300))
    test = (rng.normal(size=(300, 4)).astype(np.float32), rng.integers(0, 3, 300))
    assert abs(linear_probe(train, test, classes=3).test_accuracy - 1 / 3) < 0.14


def test_features_of_another_width_are_refused():
    train, test = blobs(30, 0.1, 0), blobs(30, 0.1, 1)
    with pytest.raises(PrepError, match="Training features are 3 wide, test features 2"):
        linear_probe(train, (test[0][:, :2], test[1]), classes=3)


def test_token_features_follow_the_shards_order():
    tokens, labels = token_features([make_shard([0], [1]), make_shard([1, 2], [0, 1])])
    assert tokens.tolist() == [[0, 1], [0, 1], [2, 3]]
    assert labels.tolist() == [1, 0, 1]


def test_pixel_features_draw_the_shards_masks_again():
    """Of 2 x 2 patches over 4 x 4 pixels one is kept: a 2 x 2 block of each image remains."""
    images = np.full((3, 4, 4, 1), 255, np.uint8)
    data = ImageSet(images, np.array([1, 0, 1]), np.array([30, 10, 20]), ("a", "b"), "set")
    shard = make_shard([10, 30], [0, 1])
    pixels, labels = pixel_features([shard], data)
    assert labels.tolist() == [0, 1]
    assert pixels.shape == (2, 16)
    assert pixels.sum(axis=1).tolist() == [4, 4]
    whole, _ = pixel_features([make_shard([10], [0], ratio=0, kept=4)], data)
    assert whole.min() == 1


def test_each_view_shows_its_own_patch():
    """Of 4 patches 1 is kept: 8 views of an image that all show the same one are 1 in 16,384."""
    images = np.full((2, 4, 4, 1), 255, np.uint8)
    data = ImageSet(images, np.array([0, 1]), np.array([10, 30]), ("a", "b"), "set")
    shard = make_shard([10] * 8 + [30] * 8, [0] * 8 + [1] * 8, views=8)
    pixels, labels = pixel_features([shard], data)
    assert labels.tolist() == [0] * 8 + [1] * 8
    assert pixels.sum(axis=1).tolist() == [4] * 16
    first, _ = pixel_features([make_shard([10, 30], [0, 1])], data)
    assert np.array_equal(pixels[::8], first)
    assert len(np.unique(pixels[:8], axis=0)) > 1


def test_classes_are_matched_by_name():
    images = np.zeros((1, 4, 4, 1), np.uint8)
    data = ImageSet(images, np.array([1]), np.array([10]), ("b", "a"), "set")
    assert pixel_features([make_shard([10], [0])], data)[1].tolist() == [0]


@pytest.mark.parametrize(("ids", "labels"), [([11], [0]), ([99], [0]), ([10], [1])])
def test_another_source_is_refused(ids, labels):
    images = np.zeros((2, 4, 4, 1), np.uint8)
    data = ImageSet(images, np.array([0, 1]), np.array([10, 30]), ("a", "b"), "set")
    with pytest.raises(PrepError, match=r"set \(train\) has no image \d+ of class '[ab]'"):
        pixel_features([make_shard(ids, labels)], data)
