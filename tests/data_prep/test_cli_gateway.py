"""``mask`` on a weak device, ``prep`` on a gateway, ``inspect`` of what came out."""

import numpy as np
import pytest
from PIL import Image
from tiny_encoder import tiny_encoder
from typer.testing import CliRunner

from data_prep.cli import app
from flower_ist.tokens import open_shard

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
            # 4 patches of 4 x 4 grey pixels are 64 B an image, stored at the encoder's size.
            assert gateway.meta.masked_image_bytes == 64 * len(gateway)


def test_without_a_test_share_one_set_is_written(fashion_folder, tmp_path):
    source = tmp_path / "images.npz"
    np.savez(source, x=np.zeros((4, 8, 8), np.uint8), y=np.arange(4) % 2)
    said = call("mask", source, "--out", tmp_path / "kept", *SIZES, "--test-share", 0)
    assert "4 images, 8 of 16 patches kept in 512 bytes" in said
    assert (tmp_path / "kept" / "meta.json").is_file()


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


def test_inspect_ends_with_code_1_at_a_changed_byte(shards):
    file = shards / "client-1" / "tokens.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "does not match its hash" in call("inspect", shards, code=1)


def test_a_sheet_without_a_source_is_refused(shards, tmp_path):
    said = call("inspect", shards, "--sheet", tmp_path / "sheet.png", code=1)
    assert "--source" in said
