"""A validation part of the server's shard: stratified, by seed, never in the test part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flower_ist.tokens.demo import test_shard as demo_test_shard
from flower_ist.tokens.shard import ShardError, open_shard
from server_app.settings import SettingsError
from server_app.validation import score_on, server_shard, split_rows, split_shard


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
    validation, test = split_rows(labels, 0.5, seed=3)
    assert np.bincount(labels[validation], minlength=3).tolist() == [5, 2, 0]
    assert np.bincount(labels[test], minlength=3).tolist() == [5, 2, 1]
    assert sorted([*validation, *test]) == list(range(15))
    assert validation.tolist() == sorted(validation)


def test_the_split_follows_from_the_seed():
    labels = np.arange(100) % 4
    first, again, other = (split_rows(labels, 0.3, seed)[0].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_parts_of_a_shard_hold_its_rows(blobs: Path):
    shard = open_shard(blobs / "test")
    validation, test = split_shard(shard, 0.25, seed=0)
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
    validation, test = split_shard(shard, 0.0, seed=0)
    assert validation is None
    assert test is shard


@pytest.mark.parametrize(("share", "left"), [(0.001, "0 for validation and 300"), (0.999, "300")])
def test_a_part_without_examples_is_refused(blobs: Path, share, left):
    with pytest.raises(SettingsError, match=f"^'validation-share' is {share}, .*leaves {left}"):
        split_shard(open_shard(blobs / "test"), share, seed=0)


def test_a_head_is_scored_on_the_validation_part_alone(blobs: Path):
    """A head that always says class 0 is right as often as there are examples of it."""
    validation, _ = split_shard(open_shard(blobs / "test"), 0.3, seed=0)
    score = score_on(validation)
    assert validation is not None
    assert score is not None
    head = {"fc1.weight": np.zeros((3, 12), np.float32), "fc1.bias": np.float32([1, 0, 0])}
    assert score(head) == np.mean(validation.labels == 0)
    assert score_on(None) is None
