"""Masked images read back, encoded to the tokens of the images themselves, and damaged."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import PrepError
from data_prep.encoders.vit import TokenEncoder
from data_prep.images.pixels import masked_pixels, network_input
from data_prep.masks.draw import MASK_KINDS, kept_patches
from data_prep.patches.read import check_mask_fits, read_masked
from data_prep.patches.settings import MaskSettings
from data_prep.patches.write import write_masked
from data_prep.sources.open import read_source, read_train_and_test
from flower_ist.tokens.meta import Mask
from tests.fakes.masked import SETTINGS, folder_of_both_kinds, images, kept_of


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_read_is_the_resized_image_with_dropped_patches_black(tmp_path, compress, channels):
    data = images(shape=(20, 12, channels))
    settings = replace(SETTINGS, compress=compress)
    write_masked(data, tmp_path / "m", settings)
    again = read_masked(tmp_path / "m")
    resized = network_input(data.images, 16)[:, :channels].permute(0, 2, 3, 1).numpy()
    expected = masked_pixels(resized, (4, 4), kept_of(data, settings))
    stored = list(again.images)
    assert all(pixels.shape == (16, 16, channels) for pixels in stored)
    np.testing.assert_array_equal(np.stack(stored), expected)
    np.testing.assert_array_equal(again.labels, data.labels)
    np.testing.assert_array_equal(again.image_ids, data.image_ids)
    assert (again.class_names, again.source, again.split) == (("a", "b"), "camera", "train")
    assert again.native_bytes == data.native_bytes
    assert again.mask == Mask("random", 0.5, 3, patches=16, kept=8)
    # Rows are taken by position, masks by image id.
    part = again.take(np.array([4, 1]))
    np.testing.assert_array_equal(part.native_pixels(), expected[[4, 1]])


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
        stored = np.stack(list(again.images))
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
        pixels = masked.take(np.arange(0, 3)).network_input(32, interpolation)
        tokens = vit.encode(data.take(np.arange(0, 3)).network_input(32), kept)
        np.testing.assert_array_equal(vit.encode(pixels, kept), tokens)
    # Another mask would see black patches: the tokens do depend on the pixels.
    other = kept_patches("random", (4, 4), 0.75, seed=6, image_ids=data.image_ids)
    assert not np.allclose(
        vit.encode(pixels, other), vit.encode(data.take(np.arange(0, 3)).network_input(32), other)
    )


def test_one_set_of_masked_images_is_held_out_from(tmp_path):
    write_masked(images(8), tmp_path / "m", SETTINGS)
    train, test = read_train_and_test(tmp_path / "m", None, 0.25, seed=0)
    assert (len(train), len(test), test.split) == (6, 2, "test")
    assert test.mask == train.mask


def test_another_mask_or_size_than_the_stored_one_is_refused(tmp_path):
    write_masked(images(), tmp_path / "m", SETTINGS)
    data = read_masked(tmp_path / "m").take(np.array([1]))
    check_mask_fits(data, SETTINGS.mask, 16, 4)
    check_mask_fits(images(), SETTINGS.mask, 99, 3)
    for changes, message in (
        ({"ratio": 0.25}, r"ratio was 0\.5 and is 0\.25"),
        ({"seed": 4}, "seed was 3 and is 4"),
        ({"kind": "grid"}, "kind was random and is grid"),
        ({"image_size": 32}, "image size was 16 and is 32"),
        ({"patch_size": 8}, "patch size was 4 and is 8"),
    ):
        asked = replace(SETTINGS, **changes)
        with pytest.raises(PrepError, match=rf"camera was masked otherwise \({message}\)"):
            check_mask_fits(data, asked.mask, asked.image_size, asked.patch_size)
    with pytest.raises(PrepError, match="views was 1 and is 2"):
        check_mask_fits(data, replace(SETTINGS.mask, views=2), 16, 4)


def overwrite(path, position, content):
    with path.open("r+b") as opened:
        opened.seek(position)
        opened.write(content)


@pytest.mark.parametrize("compress", [False, True])
def test_damage_is_found_by_hash_or_when_decoding(tmp_path, compress):
    write_masked(images(), tmp_path / "m", replace(SETTINGS, compress=compress))
    data = read_masked(tmp_path / "m")
    overwrite(tmp_path / "m" / "patches.npy", 130, bytes(40))
    with pytest.raises(PrepError, match="is damaged: the array patches does not match its hash"):
        read_masked(tmp_path / "m")
    if compress:
        with pytest.raises(
            PrepError, match=r"patches of image 0 in .*m are damaged: they are no W"
        ):
            list(data.images)


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
        read_masked(tmp_path / "m")


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
