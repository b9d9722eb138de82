"""Masked images written: bytes, channels, splits, full disks."""

from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from data_prep import PrepError
from data_prep.images.pixels import network_input
from data_prep.patches import write as masked_writer
from data_prep.patches.cut import cut_patches
from data_prep.patches.read import read_masked
from data_prep.patches.write import write_masked
from data_prep.sources.open import read_train_and_test
from flower_ist.files import NotWrittenError
from tests.fakes.full_disk import files_of_at_most
from tests.fakes.masked import SETTINGS, folder_of_both_kinds, images, kept_of


def test_plain_patches_are_one_array_and_take_no_other_byte(tmp_path):
    """8 of 16 patches of 4 x 4 pixels and 3 channels: 8 * 16 * 3 = 384 bytes an image."""
    data = images()
    (meta,) = write_masked(data, tmp_path / "m", SETTINGS)
    stored = np.load(tmp_path / "m" / "patches.npy")
    assert stored.shape == (5, 8, 4, 4, 3)
    resized = network_input(data.images, 16)[2].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(stored[2], cut_patches(resized, kept_of(data, SETTINGS)[2], 4))
    assert not (tmp_path / "m" / "offsets.npy").exists()
    assert meta.masked_bytes == 5 * 384
    again = read_masked(tmp_path / "m")
    assert again.masked_bytes.tolist() == [384] * 5
    assert again.file_bytes is None
    assert (meta.channels, meta.image_bytes, meta.image_file_bytes) == (3, 5 * 720, 5 * 720)


def test_compressed_patches_count_their_offset(tmp_path):
    data = images(file_bytes=np.arange(5) + 100, owners=np.array(["x", "y", "x", "z", "x"]))
    (meta,) = write_masked(data, tmp_path / "m", replace(SETTINGS, compress=True))
    offsets = np.load(tmp_path / "m" / "offsets.npy")
    again = read_masked(tmp_path / "m")
    assert again.masked_bytes.tolist() == (np.diff(offsets) + 8).tolist()
    assert meta.masked_bytes == np.load(tmp_path / "m" / "patches.npy").size + 5 * 8
    assert again.take(np.array([3])).masked_bytes[0] == offsets[4] - offsets[3] + 8
    assert again.file_bytes.tolist() == [100, 101, 102, 103, 104]
    assert again.owners.tolist() == ["x", "y", "x", "z", "x"]
    assert meta.image_file_bytes == 510


@pytest.mark.parametrize("compress", [False, True])
def test_gray_and_colored_images_keep_their_channels_side_by_side(tmp_path, compress):
    """Plain: 8 patches of 16 pixels are 128 or 384 bytes, 8 for the offset, 1 for the channels."""
    data = folder_of_both_kinds(tmp_path / "set")
    (meta,) = write_masked(data, tmp_path / "m", replace(SETTINGS, compress=compress))
    again = read_masked(tmp_path / "m")
    assert meta.channels == 0
    assert [p.shape[2] for p in again.images] == [1, 3, 1]
    assert again.native_bytes == 9 * 7 + 20 * 20 * 3 + 16 * 16
    if not compress:
        assert again.masked_bytes.tolist() == [137, 393, 137]
    assert again.file_bytes.tolist() == data.file_bytes.tolist()


def test_both_splits_lie_side_by_side_and_are_found(tmp_path):
    train, test = images(4), images(2, seed=9, split="test")
    metas = write_masked(train, tmp_path / "m", SETTINGS, test=test)
    assert [meta.num_images for meta in metas] == [4, 2]
    again = read_train_and_test(tmp_path / "m", None, 0.5, seed=0)
    assert [(len(data), data.split) for data in again] == [(4, "train"), (2, "test")]
    assert read_masked(tmp_path / "m" / "test").split == "test"
    other = replace(test, class_names=("a", "b", "c"))
    with pytest.raises(PrepError, match="class 'c' is in the test images"):
        write_masked(train, tmp_path / "n", SETTINGS, test=other)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_the_number_of_workers_changes_no_byte(tmp_path):
    for name, count in (("one", 1), ("many", 3)):
        write_masked(images(20), tmp_path / name, SETTINGS, workers=count)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "many" / file.name).read_bytes()


def test_masked_images_are_not_masked_again_and_no_folder_is_replaced(tmp_path):
    write_masked(images(), tmp_path / "m", SETTINGS)
    with pytest.raises(NotWrittenError, match="exists already: choose another folder"):
        write_masked(images(), tmp_path / "m", SETTINGS)
    with pytest.raises(PrepError, match="camera is masked already"):
        write_masked(read_masked(tmp_path / "m"), tmp_path / "n", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_disk_too_small_is_found_before_writing(tmp_path, monkeypatch):
    """5 images of 384 bytes and 64 for the rest need 2240 bytes."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(masked_writer.shutil, "disk_usage", lambda path: usage(9999, 0, 2239))
    with pytest.raises(PrepError, match="need 2240 bytes, but the disk has 2239 bytes free"):
        write_masked(images(), tmp_path / "m", SETTINGS)
    with pytest.raises(PrepError, match="need 2240 bytes"):
        write_masked(images(4), tmp_path / "m", SETTINGS, test=images(1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("compress", [False, True])
def test_a_disk_that_fills_in_the_middle_is_one_sentence_and_leaves_nothing(tmp_path, compress):
    expected = pytest.raises(NotWrittenError, match=r"m cannot be written \(File too large\): make")
    with files_of_at_most(20_000), expected:
        write_masked(images(80), tmp_path / "m", replace(SETTINGS, compress=compress))
    assert not list(tmp_path.iterdir())


def test_an_image_that_cannot_be_read_any_more_leaves_nothing(tmp_path):
    data = folder_of_both_kinds(tmp_path / "set")
    (tmp_path / "set" / "a" / "2.png").unlink()
    with pytest.raises(PrepError, match=r"2\.png cannot be read"):
        write_masked(data, tmp_path / "m", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
