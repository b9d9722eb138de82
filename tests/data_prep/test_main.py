"""The commands end to end, with a tiny untrained ViT on tiny images."""

import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_prep import demo
from data_prep.__main__ import app
from data_prep.encode import EncodeSettings, Encoding
from data_prep.images import network_input
from data_prep.masking import MASK_KINDS, describe_kinds, kept_patches
from data_prep.sources import read_source, read_train_and_test
from flower_ist.tokens import open_shard

ENCODER = ["--encoder", "vit_tiny_patch16_224", "--image-size", "32", "--random-weights"]


def call(*arguments, fails=False):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == int(fails), result.output
    return result.output


@pytest.fixture
def encoded(fashion_folder, tmp_path):
    out = tmp_path / "shards"
    call("encode", fashion_folder, "--out", out, *ENCODER, "--clients", 3, "--dtype", "float32")
    return out


def test_encode_writes_a_shard_per_client_and_one_for_testing(encoded):
    assert {path.name for path in encoded.iterdir()} == {"client-0", "client-1", "client-2", "test"}
    shards = [open_shard(encoded / f"client-{k}", verify=True) for k in range(3)]
    assert [len(shard) for shard in shards] == [14, 13, 13]
    ids = np.concatenate([shard.image_ids for shard in shards])
    assert sorted(ids) == list(range(40))
    meta = shards[1].meta
    assert (meta.client, meta.split, meta.source) == ("client-1", "train", "Fashion-MNIST")
    assert meta.encoder.name == "vit_tiny_patch16_224, random weights"
    assert (meta.encoder.image_size, meta.encoder.patch_size) == (32, 16)
    assert (meta.mask.ratio, meta.mask.patches, meta.mask.kept) == (0.5, 4, 2)
    # 8 x 8 grey pixels, half of them under kept patches.
    assert (meta.image_bytes, meta.masked_image_bytes) == (13 * 64, 13 * 32)
    assert meta.image_file_bytes == meta.image_bytes
    test = open_shard(encoded / "test", verify=True)
    assert (len(test), test.meta.split, test.meta.client) == (20, "test", "test")


def test_stored_tokens_are_the_encoders_own_in_any_batch_size(encoded, fashion_folder):
    settings = EncodeSettings("vit_tiny_patch16_224", None, 32, normalisation="half", batch_size=7)
    encoding = Encoding(settings)
    shard = open_shard(encoded / "test")
    assert shard.meta.encoder.weights_sha256 == encoding.record.weights_sha256
    data = read_source(fashion_folder, "test")
    tokens = np.concatenate([batch[0] for batch in encoding.batches(data)])
    assert np.abs(tokens - shard.tokens).max() <= 1e-4
    kept = kept_patches("random", (2, 2), 0.5, seed=0, image_ids=shard.image_ids)
    assert kept.shape == (20, 2)


def test_encode_takes_an_npz_with_its_own_mask_seed_and_classes(tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "set.npz"
    names = np.array(["cat", "dog"])
    images = rng.integers(0, 256, (10, 6, 4, 3)).astype(np.uint8)
    np.savez(file, x=images, y=np.arange(10) % 2, class_names=names)
    options = ["--clients", 1, "--mask-ratio", 0.75, "--seed", 9, "--label", "tiny"]
    call("encode", file, "--out", tmp_path / "out", *ENCODER, *options)
    shard = open_shard(tmp_path / "out" / "client-0", verify=True)
    assert (len(shard), len(open_shard(tmp_path / "out" / "test"))) == (8, 2)
    assert shard.meta.class_names == ("cat", "dog")
    assert (shard.meta.mask.seed, shard.meta.mask.kept) == (9, 1)
    assert shard.meta.encoder.name == "tiny, random weights"
    assert shard.meta.masked_image_bytes == 8 * 6 * 4 * 3 // 4


@pytest.fixture
def class_folders(tmp_path):
    """10 grey and 5 coloured PNG files of other sizes."""
    root = tmp_path / "pets"
    rng = np.random.default_rng(0)
    for name, count, shape in (("cat", 10, (6, 5)), ("dog", 5, (4, 7, 3))):
        (root / name).mkdir(parents=True)
        for k in range(count):
            pixels = rng.integers(0, 256, shape).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


def test_encode_takes_class_folders_and_counts_their_bytes(class_folders, tmp_path):
    """Training keeps 8 of 10 images of 6 x 5 x 1 and 4 of 5 of 4 x 7 x 3 bytes: 240 + 336."""
    out = tmp_path / "out"
    call("encode", class_folders, "--out", out, *ENCODER, "--clients", 1, "--mask", "block")
    shard, test = (open_shard(out / name, verify=True) for name in ("client-0", "test"))
    assert (len(shard), len(test)) == (12, 3)
    assert np.bincount(test.labels).tolist() == [2, 1]
    meta = shard.meta
    assert (meta.class_names, meta.source, meta.mask.kind) == (("cat", "dog"), "pets", "block")
    assert (meta.image_bytes, meta.masked_image_bytes) == (576, 288)
    files = sorted(path for path in class_folders.rglob("*.png"))
    assert meta.image_file_bytes == sum(files[i].stat().st_size for i in shard.image_ids)
    again = call("encode", class_folders, "--out", tmp_path / "again", *ENCODER, "--batch-size", 4)
    assert "Skipped" not in again


def test_unreadable_files_stop_or_are_listed_at_the_end(class_folders, tmp_path):
    bad = [class_folders / "cat" / "3.png", class_folders / "dog" / "0.png"]
    for path in bad:
        path.write_bytes(path.read_bytes()[:50])
    arguments = ["encode", class_folders, "--out", tmp_path / "out", *ENCODER]
    output = call(*arguments, fails=True)
    assert f"Error: {bad[0]} cannot be read as an image" in output
    assert not (tmp_path / "out").exists()
    lines = call(*arguments, "--on-error", "skip").splitlines()
    assert lines[-3] == "Skipped 2 unreadable image files:"
    assert [line.partition(" cannot be read")[0] for line in lines[-2:]] == [str(p) for p in bad]
    ids = [open_shard(tmp_path / "out" / f"client-{k}").image_ids for k in range(4)]
    held = open_shard(tmp_path / "out" / "test").image_ids
    assert sorted(np.concatenate([*ids, held])) == [k for k in range(15) if k not in (3, 10)]


def test_pixels_of_class_folders_are_probed_where_all_are_of_one_size(class_folders, tmp_path):
    out = tmp_path / "out"
    call("encode", class_folders, "--out", out, *ENCODER, "--clients", 1)
    arguments = ["probe-pixels", class_folders, out / "client-0", "--test", out / "test"]
    output = call(*arguments, fails=True)
    assert "Error: pets has images of" in output
    for path in (class_folders / "dog").iterdir():
        Image.new("L", (5, 6)).save(path)
    assert "12 train, 3 test, 30 features" in call(*arguments)


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_every_mask_kind_encodes_and_is_recorded(kind, fashion_folder, tmp_path):
    options = [*ENCODER, "--clients", 1, "--mask", kind, "--mask-ratio", 0.25]
    call("encode", fashion_folder, "--out", tmp_path / "out", *options)
    mask = open_shard(tmp_path / "out" / "test", verify=True).meta.mask
    assert (mask.kind, mask.patches, mask.kept) == (kind, 4, 3)


def test_help_lists_every_mask_kind(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    output = re.sub(r"\x1b\[[0-9;]*m", "", call("encode", "--help"))
    assert all(line in output for line in describe_kinds())


RECORDED = {
    "fashion client-0": (
        2560,
        2560,
        1280,
        "7e37e8558ec97433",
        "eedc539e16fc0e95",
        "Fashion-MNIST",
        "train",
    ),
    "fashion test": (
        1280,
        1280,
        640,
        "46ac28dada56bcc5",
        "f5c4cb24f4c9b43e",
        "Fashion-MNIST",
        "test",
    ),
    "npz client-0": (576, 576, 288, "6012e40c0a5760e0", "a7b63e11a5cd658e", "set", "train"),
    "npz test": (144, 144, 72, "af5570f5a1810b7a", "c571327cb01ac1de", "set", "test"),
}


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def test_shards_of_arrays_stay_what_they_were_before_images_could_be_files(
    fashion_folder, tmp_path
):
    """Recorded with the release that had arrays only; tokens equal its formula bit for bit.

    Tokens are not recorded: their last bits differ between machines.
    """
    file = tmp_path / "set.npz"
    images = np.arange(10 * 6 * 4 * 3, dtype=np.uint8).reshape(10, 6, 4, 3)
    np.savez(file, x=images, y=np.arange(10) % 2)
    found = {}
    for name, source in (("npz", file), ("fashion", fashion_folder)):
        out = tmp_path / name
        options = ["--clients", 1, "--seed", 9, "--dtype", "float32", "--batch-size", 7]
        call("encode", source, "--out", out, *ENCODER, *options)
        for part in ("client-0", "test"):
            shard = open_shard(out / part, verify=True)
            meta = shard.meta
            sizes = (meta.image_bytes, meta.image_file_bytes, meta.masked_image_bytes)
            arrays = (digest(shard.labels), digest(shard.image_ids))
            found[f"{name} {part}"] = (*sizes, *arrays, meta.source, meta.split)
    assert found == RECORDED
    train, _ = read_train_and_test(file, None, 0.2, seed=9)
    encoding = Encoding(EncodeSettings("vit_tiny_patch16_224", None, 32, seed=9, batch_size=7))
    shard = open_shard(tmp_path / "npz" / "client-0")
    for rows in (slice(0, 7), slice(7, 8)):
        ids = train.image_ids[rows]
        kept = kept_patches("random", (2, 2), 0.5, seed=9, image_ids=ids)
        tokens = encoding.vit.encode(network_input(images[ids], 32), kept)
        np.testing.assert_array_equal(tokens, shard.tokens[rows])


def test_probes_read_tokens_and_masked_pixels(encoded, fashion_folder):
    clients = [encoded / f"client-{k}" for k in range(3)]
    tokens = call("probe", *clients, "--test", encoded / "test")
    assert "Linear probe on tokens: test accuracy" in tokens
    assert "40 train, 20 test, 192 features" in tokens
    pixels = call("probe-pixels", fashion_folder, *clients, "--test", encoded / "test")
    assert "Linear probe on masked pixels: test accuracy" in pixels
    assert "40 train, 20 test, 64 features" in pixels


def test_demo_tokens_are_balanced_small_and_made_again_bit_for_bit(
    fashion_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(demo, "PER_CLASS", {"train": 4, "test": 2})
    for name in ("a", "b"):
        call("demo-tokens", fashion_folder, "--out", tmp_path / name, *ENCODER)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [*(f"test-{k}.json" for k in range(2)), *(f"train-{k}.json" for k in range(4))]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        shard = open_shard(tmp_path / "a" / name)
        assert np.bincount(shard.labels).tolist() == [1] * 10
        assert shard.meta.token_dtype == "int8"
    assert json.loads((tmp_path / "a" / "test-0.json").read_text())["split"] == "test"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--mask-ratio", "1"], "The mask ratio must be at least 0 and below 1, not 1.0."),
        (["--mask", "spiral"], "The mask kind 'spiral' is unknown"),
        (["--dtype", "int4"], "The token type 'int4' is unknown"),
        (["--clients", "41"], "40 images cannot be split into 41 parts"),
        (["--batch-size", "0"], "The batch size must be at least 1, not 0."),
        (["--on-error", "ignore"], "The choice on error 'ignore' is unknown: use stop or skip."),
        (["--seed", "-1"], "The seed must be 0 to 2**64 - 1, not -1."),
        (["--weights", "none.safetensors"], "Give either --weights FILE or --random-weights."),
        (["--normalisation", "other"], "The normalisation 'other' is unknown"),
        (["--interpolation", "nearest"], "The interpolation 'nearest' is unknown"),
        (["--device", "abacus"], "The device 'abacus' cannot be used"),
    ],
)
def test_wrong_options_end_in_one_sentence_and_leave_no_shard(
    fashion_folder, tmp_path, change, message
):
    out = tmp_path / "out"
    output = call("encode", fashion_folder, "--out", out, *ENCODER, *change, fails=True)
    assert f"Error: {message}" in output.replace("\n", " ")
    assert "Traceback" not in output
    assert not any(out.glob("*"))


def test_existing_shards_are_found_before_anything_is_encoded(encoded, fashion_folder):
    for k in range(3):
        (encoded / f"client-{k}").rename(encoded / f"kept-{k}")
    output = call("encode", fashion_folder, "--out", encoded, *ENCODER, fails=True)
    assert "exists already" in output
    assert not (encoded / "client-0").exists()


def test_shards_of_different_classes_are_not_probed_together(encoded, tmp_path):
    np.savez(tmp_path / "set.npz", x=np.zeros((9, 4, 4), np.uint8), y=np.arange(9) % 2)
    call("encode", tmp_path / "set.npz", "--out", tmp_path / "out", *ENCODER, "--clients", 1)
    both = [encoded / "client-0", tmp_path / "out" / "client-0"]
    output = call("probe", *both, "--test", encoded / "test", fails=True)
    assert "Error: The shards have different classes." in output


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        ("encode", "SOURCE is"),
        ("demo-tokens", "FASHION_MNIST is"),
        ("probe", "TRAIN... are"),
        ("probe-pixels", "SOURCE holds"),
    ],
)
def test_every_command_explains_its_arguments(command, argument):
    assert argument in call(command, "--help")
