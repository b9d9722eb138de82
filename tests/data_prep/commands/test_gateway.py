"""``mask`` on a weak device, ``prep`` on a gateway, ``inspect`` of what came out."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_prep.commands.app import app
from data_prep.patches.meta import read_meta
from flower_ist.tokens.shard import open_shard
from tests.fakes import ROOT
from tests.fakes.tiny_encoder import tiny_encoder

SIZES = ("--image-size", 16, "--patch-size", 4)


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def encoder(tmp_path):
    return tiny_encoder(tmp_path)


@pytest.mark.parametrize("compress", [(), ("--compress",)])
def test_a_gateway_makes_the_tokens_that_the_device_would(
    fashion_folder, encoder, tmp_path, compress
):
    options = ("--mask-ratio", 0.75, "--seed", 7)
    said = call("mask", fashion_folder, "--out", tmp_path / "kept", *SIZES, *options, *compress)
    assert "60 images, 4 of 16 patches kept" in said
    one, other = tmp_path / "direct", tmp_path / "gateway"
    tail = ("--encoder", encoder, "--dtype", "float32", "--clients", 2)
    call("prep", fashion_folder, "--out", one, *options, *tail)
    call("prep", tmp_path / "kept", "--out", other, "--seed", 7, *tail)
    for name in ("client-0", "client-1", "test"):
        direct, gateway = open_shard(one / name), open_shard(other / name)
        for array in ("tokens", "labels", "image_ids"):
            np.testing.assert_array_equal(getattr(direct, array), getattr(gateway, array))
        assert direct.meta.mask == gateway.meta.mask
        assert direct.meta.image_bytes == gateway.meta.image_bytes
        if not compress:
            # 4 patches of 4 x 4 gray pixels are 64 B an image, stored at the encoder's size.
            assert gateway.meta.masked_image_bytes == 64 * len(gateway)


def test_without_a_test_share_one_set_is_written(fashion_folder, tmp_path):
    source = tmp_path / "images.npz"
    np.savez(source, x=np.zeros((4, 8, 8), np.uint8), y=np.arange(4) % 2)
    said = call("mask", source, "--out", tmp_path / "kept", *SIZES, "--test-share", 0)
    assert "4 images, 8 of 16 patches kept in 512 bytes" in said
    assert (tmp_path / "kept" / "meta.json").is_file()


def fill(folder, counts):
    """Write gray images of 8 x 8 pixels into class folders; no two are the same."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            Image.new("L", (8, 8), 40 * label + k).save(folder / name / f"{k}.png")
    return folder


def schema(file, *names):
    content = {"format": "flower-ist-classes", "version": 1, "classes": names}
    file.write_text(json.dumps(content))
    return file


def test_the_commands_for_a_weak_device_do_what_the_docs_say(tmp_path, monkeypatch):
    """As printed, but for the encoder's weights: one shard of all images, by the agreed classes."""
    text = (ROOT / "docs" / "preparing.md").read_text()
    mask, prep = re.findall(
        r"^flower-ist ((?:mask MY_IMAGES|prep kept) (?:.*\\\n)*.*)$", text, flags=re.MULTILINE
    )
    mask, prep = (line.replace("\\\n", " ") for line in (mask, prep))
    assert "vit_base_patch16_224.mae --weights pretrained" in prep
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "MY_IMAGES", {"cat": 3, "owl": 2})
    schema(tmp_path / "classes.json", "owl", "fox", "cat")
    call(*shlex.split(mask))
    file = tiny_encoder(tmp_path, image_size=224, patch_size=16)
    call(*shlex.split(re.sub(r"vit_base.* --weights pretrained", str(file), prep)))
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {"porch", "classes.json"}
    shard = open_shard(tmp_path / "shards" / "porch", verify=True)
    assert shard.meta.class_names == ("owl", "fox", "cat")
    assert (shard.meta.client, shard.labels.tolist()) == ("porch", [2, 2, 2, 0, 0])
    assert (shard.meta.mask.patches, shard.meta.mask.kept) == (196, 49)


def test_test_images_that_are_left_out_are_told_of(fashion_folder, encoder, tmp_path):
    options = ("--test-share", 0)
    sentence = f"--test-share 0 leaves out the test images of {fashion_folder}."
    assert sentence in call("mask", fashion_folder, "--out", tmp_path / "kept", *SIZES, *options)
    tail = ("--encoder", encoder, "--clients", 2, *options)
    assert sentence in call("prep", fashion_folder, "--out", tmp_path / "shards", *tail)
    assert "leaves out the test images" not in call(
        "prep", tmp_path / "kept", "--out", tmp_path / "two", *tail
    )


def test_how_images_were_read_comes_along(fashion_folder, tmp_path):
    choices = ("--alpha", "ignore", "--orientation", "exif", "--interpolation", "bilinear")
    call("mask", fashion_folder, "--out", tmp_path / "kept", *SIZES, *choices)
    meta = read_meta(tmp_path / "kept" / "train")
    assert meta.reading == {"alpha": "ignore", "orientation": "exif"}
    assert meta.interpolation == "bilinear"


def test_masked_images_do_not_go_into_the_images_folder(tmp_path):
    images = fill(tmp_path / "images", {"cat": 3})
    for out, options in (
        (images / "kept", (images,)),
        (images, (images,)),
        (images / "kept", (tmp_path / "none", "--test", images)),
    ):
        said = call("mask", *options, "--out", out, *SIZES, code=1)
        assert "lies in the folder of the images" in said
    assert [path.name for path in images.iterdir()] == ["cat"]


def test_class_names_that_cannot_be_are_found_before_anything_is_masked(tmp_path):
    source = tmp_path / "set.npz"
    names = np.array(["a", "a"])
    np.savez(source, x=np.zeros((4, 8, 8), np.uint8), y=np.arange(4) % 2, class_names=names)
    said = call("mask", source, "--out", tmp_path / "kept", *SIZES, code=1)
    assert "set.npz names the class 'a' twice" in said
    assert not (tmp_path / "kept").exists()


def test_masking_twice_into_one_folder_or_with_bad_sizes_is_refused(fashion_folder, tmp_path):
    call("mask", fashion_folder, "--out", tmp_path / "kept", *SIZES)
    said = call("mask", fashion_folder, "--out", tmp_path / "kept", *SIZES, code=1)
    assert "exists" in said
    # It is found out before the images are read: here there are none.
    assert "exists" in call("mask", tmp_path / "none", "--out", tmp_path / "kept", *SIZES, code=1)
    bad = ("--image-size", 16, "--patch-size", 5)
    assert "no multiple" in call("mask", fashion_folder, "--out", tmp_path / "x", *bad, code=1)
    assert not (tmp_path / "x").exists()


@pytest.fixture
def shards(fashion_folder, encoder, tmp_path):
    out = tmp_path / "shards"
    call("prep", fashion_folder, "--out", out, "--encoder", encoder, "--clients", 2)
    return out


def test_inspect_shows_shards_and_draws_their_masks(shards, fashion_folder, tmp_path):
    sheet = tmp_path / "sheet.png"
    said = call("inspect", shards, "--sheet", sheet, "--source", fashion_folder, "--images", 4)
    assert all(name in said for name in ("client-0", "client-1", "test"))
    with Image.open(sheet) as picture:
        assert min(picture.size) > 200


def test_a_sheet_of_a_device_that_lacks_a_class_but_has_its_folder(tmp_path, encoder):
    images = fill(tmp_path / "images", {"cat": 3, "fox": 0})
    classes = schema(tmp_path / "classes.json", "fox", "cat")
    options = ("--encoder", encoder, "--client", "shed", "--classes", classes, "--test-share", 0)
    call("prep", images, "--out", tmp_path / "out", *options)
    sheet = tmp_path / "sheet.png"
    call("inspect", tmp_path / "out", "--sheet", sheet, "--source", images)
    assert sheet.stat().st_size


def test_inspect_ends_with_code_1_at_a_changed_byte(shards):
    file = shards / "client-1" / "tokens.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "does not match its hash" in call("inspect", shards, code=1)


def test_a_sheet_without_a_source_is_refused(shards, tmp_path):
    said = call("inspect", shards, "--sheet", tmp_path / "sheet.png", code=1)
    assert "--source" in said
