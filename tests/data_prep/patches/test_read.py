"""Masked images written, read back, and encoded to the tokens of the images themselves."""

import json
import shutil
import tempfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep import PrepError
from data_prep.encoders.vit import TokenEncoder
from data_prep.images.image_set import ImageSet
from data_prep.images.pixels import masked_pixels, network_input
from data_prep.masks.draw import MASK_KINDS, kept_patches
from data_prep.patches import write as masked_writer
from data_prep.patches.codec import pack, unpack
from data_prep.patches.cut import cut_patches, lay_mosaic, place_patches
from data_prep.patches.read import check_mask_fits, read_masked
from data_prep.patches.settings import MaskSettings
from data_prep.patches.write import write_masked, write_masked_splits
from data_prep.sources.open import read_source, read_train_and_test
from flower_ist.files import NotWrittenError
from flower_ist.tokens.meta import Mask
from tests.fakes.full_disk import files_of_at_most

SETTINGS = MaskSettings(image_size=16, patch_size=4, ratio=0.5, seed=3)


def images(count=5, shape=(20, 12, 3), seed=0, **changes):
    rng = np.random.default_rng(seed)
    options = {
        "images": rng.integers(0, 256, (count, *shape)).astype(np.uint8),
        "labels": np.arange(count) % 2,
        "image_ids": np.arange(count) * 7 + 2,
        "class_names": ("a", "b"),
        "source": "camera",
    }
    return ImageSet(**(options | changes))


def folder_of_both_kinds(root):
    """Two gray and one colored picture of different sizes."""
    rng = np.random.default_rng(1)
    (root / "a").mkdir(parents=True)
    for k, shape in enumerate(((9, 7), (20, 20, 3), (16, 16))):
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(root / "a" / f"{k}.png")
    return read_source(root)


def kept_of(data, settings):
    side = settings.image_size // settings.patch_size
    return kept_patches(
        settings.kind, (side, side), settings.ratio, seed=settings.seed, image_ids=data.image_ids
    )


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_read_is_the_resized_image_with_dropped_patches_black(tmp_path, compress, channels):
    data = images(shape=(20, 12, channels))
    settings = replace(SETTINGS, compress=compress)
    write_masked(data, tmp_path / "m", settings)
    again = read_masked(tmp_path / "m")
    resized = network_input(data.images, 16)[:, :channels].permute(0, 2, 3, 1).numpy()
    expected = masked_pixels(resized, (4, 4), kept_of(data, settings))
    stored = list(again.images.decode(slice(None)))
    assert all(pixels.shape == (16, 16, channels) for pixels in stored)
    np.testing.assert_array_equal(np.stack(stored), expected)
    np.testing.assert_array_equal(again.labels, data.labels)
    np.testing.assert_array_equal(again.image_ids, data.image_ids)
    assert (again.class_names, again.source, again.split) == (("a", "b"), "camera", "train")
    assert again.native_bytes == data.native_bytes
    assert again.mask == Mask("random", 0.5, 3, patches=16, kept=8)
    # Rows are taken by position, masks by image id.
    part = again.take(np.array([4, 1]))
    np.testing.assert_array_equal(part.native_pixels(np.array([0, 1])), expected[[4, 1]])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_exactly_the_kept_pixels_survive_for_every_mask(data):
    patch = data.draw(st.integers(1, 4))
    side = data.draw(st.integers(1, 5))
    settings = MaskSettings(
        image_size=patch * side,
        patch_size=patch,
        kind=data.draw(st.sampled_from(sorted(MASK_KINDS))),
        # 0.04 of 1 patch would keep none.
        ratio=data.draw(st.sampled_from([0, 0.3, 0.5, 0.9])) if side > 3 else 0.0,
        seed=data.draw(st.integers(0, 2**64 - 1)),
        compress=data.draw(st.booleans()),
    )
    shape = (settings.image_size, settings.image_size, data.draw(st.sampled_from([1, 3])))
    given_images = images(3, shape, seed=data.draw(st.integers(0, 99)))
    with tempfile.TemporaryDirectory() as folder:
        write_masked(given_images, Path(folder) / "m", settings, workers=1)
        again = read_masked(Path(folder) / "m")
        stored = np.stack(list(again.images.decode(slice(None))))
    kept = kept_of(given_images, settings)
    np.testing.assert_array_equal(stored, masked_pixels(given_images.images, (side, side), kept))


@pytest.mark.parametrize("compress", [False, True])
def test_tokens_of_masked_images_are_those_of_the_images(tmp_path, tiny_vit, compress):
    data = folder_of_both_kinds(tmp_path / "set")
    settings = MaskSettings(32, 8, ratio=0.75, seed=5, compress=compress)
    write_masked(data, tmp_path / "m", settings)
    masked = read_source(tmp_path / "m")
    vit = TokenEncoder(tiny_vit(), "imagenet")
    kept = kept_of(data, settings)
    for interpolation in ("bicubic", "bilinear"):
        pixels = masked.network_input(slice(0, 3), 32, interpolation)
        tokens = vit.encode(data.network_input(slice(0, 3), 32), kept)
        np.testing.assert_array_equal(vit.encode(pixels, kept), tokens)
    # Another mask would see black patches: the tokens do depend on the pixels.
    other = kept_patches("random", (4, 4), 0.75, seed=6, image_ids=data.image_ids)
    assert not np.allclose(
        vit.encode(pixels, other), vit.encode(data.network_input(slice(0, 3), 32), other)
    )


def test_plain_patches_are_one_array_and_take_no_other_byte(tmp_path):
    """8 of 16 patches of 4 x 4 pixels and 3 channels: 8 * 16 * 3 = 384 bytes an image."""
    data = images()
    meta = write_masked(data, tmp_path / "m", SETTINGS)
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
    meta = write_masked(data, tmp_path / "m", replace(SETTINGS, compress=True))
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
    meta = write_masked(data, tmp_path / "m", replace(SETTINGS, compress=compress))
    again = read_masked(tmp_path / "m")
    assert meta.channels == 0
    assert [p.shape[2] for p in again.images.decode(slice(None))] == [1, 3, 1]
    assert again.native_bytes == 9 * 7 + 20 * 20 * 3 + 16 * 16
    if not compress:
        assert again.masked_bytes.tolist() == [137, 393, 137]
    assert again.file_bytes.tolist() == data.file_bytes.tolist()


def test_compression_is_smaller_on_smooth_pictures_and_exact_on_any():
    slope = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[..., None].repeat(3, axis=2)
    patches = cut_patches(slope, np.arange(0, 64, 3), 8)
    blob = pack(patches, "webp")
    assert len(blob) < patches.size / 4
    np.testing.assert_array_equal(unpack(blob, patches.shape, "webp"), patches)


def test_a_mosaic_is_as_square_as_can_be():
    """5 patches: 3 columns, 2 rows, the sixth cell black; the fourth patch begins row two."""
    patches = np.arange(1, 6, dtype=np.uint8).repeat(4).reshape(5, 2, 2, 1)
    assert lay_mosaic(patches)[::2, ::2, 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert place_patches(patches[:1], np.array([2]), 4)[..., 0].tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
    ]


def test_both_splits_lie_side_by_side_and_are_found(tmp_path):
    train, test = images(4), images(2, seed=9, split="test")
    metas = write_masked_splits(train, test, tmp_path / "m", SETTINGS)
    assert [meta.num_images for meta in metas] == [4, 2]
    again = read_train_and_test(tmp_path / "m", None, 0.5, seed=0)
    assert [(len(data), data.split) for data in again] == [(4, "train"), (2, "test")]
    assert read_masked(tmp_path / "m" / "test").split == "test"
    with pytest.raises(PrepError, match="class 'c' is in the test images"):
        write_masked_splits(
            train, replace(test, class_names=("a", "b", "c")), tmp_path / "n", SETTINGS
        )
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_one_set_of_masked_images_is_held_out_from(tmp_path):
    write_masked(images(8), tmp_path / "m", SETTINGS)
    train, test = read_train_and_test(tmp_path / "m", None, 0.25, seed=0)
    assert (len(train), len(test), test.split) == (6, 2, "test")
    assert test.mask == train.mask


def test_the_number_of_workers_changes_no_byte(tmp_path):
    for name, count in (("one", 1), ("many", 3)):
        write_masked(images(20), tmp_path / name, SETTINGS, workers=count)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "many" / file.name).read_bytes()


def test_another_mask_or_size_than_the_stored_one_is_refused(tmp_path):
    write_masked(images(), tmp_path / "m", SETTINGS)
    data = read_masked(tmp_path / "m").take(np.array([1]))
    check_mask_fits(data, SETTINGS.mask, 16, 4)
    check_mask_fits(images(), SETTINGS.mask, 99, 3)
    for changes, message in (
        ({"ratio": 0.25}, r"with the mask's ratio 0\.5, but 0\.25 is asked for"),
        ({"seed": 4}, "with the mask's seed 3, but 4 is asked for"),
        ({"kind": "grid"}, "with the mask's kind random, but grid"),
        ({"image_size": 32}, "with the image size 16, but 32"),
        ({"patch_size": 8}, "with the patch size 4, but 8"),
    ):
        asked = replace(SETTINGS, **changes)
        with pytest.raises(PrepError, match=f"camera was masked {message}"):
            check_mask_fits(data, asked.mask, asked.image_size, asked.patch_size)
    with pytest.raises(PrepError, match="with the mask's views 1, but 2"):
        check_mask_fits(data, replace(SETTINGS.mask, views=2), 16, 4)


def test_masked_images_are_not_masked_again_and_no_folder_is_replaced(tmp_path):
    write_masked(images(), tmp_path / "m", SETTINGS)
    with pytest.raises(NotWrittenError, match="exists already: choose another folder"):
        write_masked(images(), tmp_path / "m", SETTINGS)
    with pytest.raises(PrepError, match="camera is masked already"):
        write_masked(read_masked(tmp_path / "m"), tmp_path / "n", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 5}, "16 pixels is no multiple of patches of 5"),
        ({"patch_size": 0}, "no multiple of patches of 0"),
        ({"image_size": 0}, "0 pixels is no multiple"),
        ({"ratio": 1.0}, r"must be at least 0 and below 1, not 1\.0"),
        ({"ratio": 0.99}, "keeps none of 16 patches"),
        ({"kind": "stripes"}, "mask kind 'stripes' is unknown"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"interpolation": "nearest"}, "'nearest' is unknown: use bicubic or bilinear"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(PrepError, match=message):
        replace(SETTINGS, **changes)


def test_a_disk_too_small_is_found_before_writing(tmp_path, monkeypatch):
    """5 images of 384 bytes and 64 for the rest need 2240 bytes."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(masked_writer.shutil, "disk_usage", lambda path: usage(9999, 0, 2239))
    with pytest.raises(PrepError, match="need 2240 bytes, but the disk has 2239 bytes free"):
        write_masked(images(), tmp_path / "m", SETTINGS)
    with pytest.raises(PrepError, match="need 2240 bytes"):
        write_masked_splits(images(4), images(1), tmp_path / "m", SETTINGS)
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


def overwrite(path, position, content):
    with path.open("r+b") as opened:
        opened.seek(position)
        opened.write(content)


@pytest.mark.parametrize("compress", [False, True])
def test_damage_is_found_by_hash_or_when_decoding(tmp_path, compress):
    write_masked(images(), tmp_path / "m", replace(SETTINGS, compress=compress))
    overwrite(tmp_path / "m" / "patches.npy", 130, bytes(40))
    with pytest.raises(PrepError, match="is damaged: the array patches does not match its hash"):
        read_masked(tmp_path / "m")
    if compress:
        data = read_masked(tmp_path / "m", verify=False)
        with pytest.raises(
            PrepError, match=r"patches of image 0 in .*m are damaged: they are no W"
        ):
            list(data.images.decode(slice(None)))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("labels", np.zeros(4, np.int32), "the array labels does not fit"),
        ("labels", np.full(5, 2, np.int32), "the array labels does not fit"),
        ("labels", np.zeros(5, np.int64), "the array labels does not fit"),
        ("image_ids", np.full(5, -1), "the array image_ids does not fit"),
        ("offsets", np.array([0, 9, 8, 20, 30, 40]), "the array offsets does not fit"),
        ("patches", np.zeros((5, 8, 4, 4), np.uint8), "the array offsets does not fit"),
        ("labels", np.array([None] * 5), "is truncated or not a plain .npy file"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, name, array, message):
    write_masked(images(), tmp_path / "m", replace(SETTINGS, compress=True))
    np.save(tmp_path / "m" / f"{name}.npy", array)
    with pytest.raises(PrepError, match=message):
        read_masked(tmp_path / "m", verify=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "of version 2, but this release reads version 1"),
        ({"format": "other"}, "is no folder of masked images"),
        ({"num_images": True}, "must be whole numbers"),
        ({"class_names": []}, "class_names must be a list of texts"),
        ({"patch_size": 0}, "is incomplete or edited"),
        ({"patch_size": 5}, "images of whole patches"),
        ({"mask": {"kind": "random"}}, "is incomplete or edited"),
        ({"mask": {**vars(SETTINGS.mask), "kept": 9}}, "does not keep 9 patches"),
        ({"mask": {**vars(SETTINGS.mask), "kind": "none"}}, "mask cannot be drawn"),
        ({"compression": "zip"}, "compression are unknown"),
        ({"interpolation": "nearest"}, "interpolation or its hashes"),
        ({"sha256": {}}, "the hash of each array"),
        ({"sha256": {"../labels": ""}}, "the hash of each array"),
        ({"extra": 1}, "is incomplete or edited"),
    ],
)
def test_meta_data_that_were_edited_are_refused(tmp_path, changes, message):
    write_masked(images(), tmp_path / "m", SETTINGS)
    path = tmp_path / "m" / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(PrepError, match=message):
        read_masked(tmp_path / "m")


def test_incomplete_folders_are_refused(tmp_path):
    write_masked(images(), tmp_path / "m", SETTINGS)
    for name, message in (("labels.npy", "labels.npy is missing"), ("meta.json", "cannot be read")):
        shutil.copytree(tmp_path / "m", tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(PrepError, match=message):
            read_masked(tmp_path / name)
    (tmp_path / "m" / "patches.npy").write_bytes(b"\x93NUMPY short")
    with pytest.raises(PrepError, match="is truncated or not a plain"):
        read_masked(tmp_path / "m")
    (tmp_path / "m" / "meta.json").write_text("{")
    with pytest.raises(PrepError, match="is not a JSON file"):
        read_masked(tmp_path / "m")
