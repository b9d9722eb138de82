"""The command ``prep``: what it prints and writes, its errors, its help."""

import hashlib
import inspect
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_prep.commands.app import app
from data_prep.commands.prep import prep
from data_prep.masks.draw import MASK_KINDS
from data_prep.masks.names import describe_kinds
from data_prep.shards.encode import Encoding
from data_prep.shards.settings import PrepSettings
from data_prep.splits.kinds import describe_splits
from flower_ist.tokens.shard import open_shard
from tests.fakes.tiny_encoder import tiny_encoder


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Drawing a picture takes longer than all else here."""
    monkeypatch.setattr("data_prep.shards.report.plot_split", lambda report, file: file.touch())


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Tables and sentences are not folded."""
    monkeypatch.setattr("data_prep.commands.prep.console.width", 200)


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def encoder(tmp_path):
    return ["--encoder", tiny_encoder(tmp_path), "--workers", 0]


def test_every_setting_is_an_option_with_the_same_default():
    options = inspect.signature(prep).parameters
    assert set(options) == {field.name for field in fields(PrepSettings)}
    required = [field.name for field in fields(PrepSettings) if field.default is MISSING]
    assert required == ["source", "out"] == list(options)[:2]
    for field in fields(PrepSettings):
        if field.name not in required:
            assert options[field.name].default == field.default


def test_prep_writes_shards_and_prints_their_bytes_and_the_split(fashion_folder, tmp_path, encoder):
    """14 of 40 images of 8 x 8 bytes, half of them kept, against 14 tokens of 16 x 4 bytes."""
    out = tmp_path / "shards"
    options = [*encoder, "--clients", 3, "--dtype", "float32"]
    lines = call("prep", fashion_folder, "--out", out, *options).splitlines()
    cells = [line.split() for line in lines]
    assert ["client-0", "14", "896", "448", "896", "0.0"] in cells
    assert ["test", "20", "1280", "640", "1280", "0.0"] in cells
    assert ["all", "60", "3840", "1920", "3840", "0.0"] in cells
    assert any("60/60" in line and "images/s" in line for line in lines)
    assert any(row[:2] == ["client-2", "13"] for row in cells)
    written = {path.name for path in out.iterdir()}
    shards = {"client-0", "client-1", "client-2", "test"}
    assert written == shards | {"classes.json", "split.json", "split.png"}
    meta = open_shard(out / "client-1", verify=True).meta
    assert (meta.client, meta.split, meta.source) == ("client-1", "train", "Fashion-MNIST")
    assert (meta.encoder.name, meta.encoder.image_size, meta.encoder.patch_size) == ("tiny", 16, 4)
    assert (meta.mask.ratio, meta.mask.patches, meta.mask.kept) == (0.5, 16, 8)


def test_scales_count_as_token_bytes(fashion_folder, tmp_path, encoder):
    """int8: 16 + 4 bytes a token against 64 bytes an image saves 68.75 %."""
    options = [*encoder, "--clients", 1, "--dtype", "int8"]
    output = call("prep", fashion_folder, "--out", tmp_path / "out", *options)
    assert ["all", "60", "3840", "1920", "1200", "68.8"] in [r.split() for r in output.splitlines()]


def test_labels_and_ids_of_a_seed_stay_what_they_were(fashion_folder, tmp_path, encoder):
    """Recorded with the first release. Tokens are not: their last bits differ between machines."""
    options = [*encoder, "--clients", 1, "--seed", 9]
    call("prep", fashion_folder, "--out", tmp_path / "out", *options)
    recorded = {
        "client-0": ("7e37e8558ec97433", "eedc539e16fc0e95"),
        "test": ("46ac28dada56bcc5", "f5c4cb24f4c9b43e"),
    }
    for name, digests in recorded.items():
        shard = open_shard(tmp_path / "out" / name)
        assert (digest(shard.labels), digest(shard.image_ids)) == digests


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


@pytest.fixture
def class_folders(tmp_path):
    """10 gray and 5 colored PNG files of other sizes."""
    root = tmp_path / "pets"
    rng = np.random.default_rng(0)
    for name, count, shape in (("cat", 10, (6, 5)), ("dog", 5, (4, 7, 3))):
        (root / name).mkdir(parents=True)
        for k in range(count):
            pixels = rng.integers(0, 256, shape).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


def test_class_folders_count_their_own_bytes(class_folders, tmp_path, encoder):
    """Training keeps 8 of 10 images of 6 x 5 x 1 and 4 of 5 of 4 x 7 x 3 bytes: 240 + 336."""
    out = tmp_path / "out"
    call("prep", class_folders, "--out", out, *encoder, "--clients", 1, "--mask", "block")
    shard, test = (open_shard(out / name, verify=True) for name in ("client-0", "test"))
    assert (len(shard), len(test)) == (12, 3)
    assert np.bincount(test.labels).tolist() == [2, 1]
    meta = shard.meta
    assert (meta.class_names, meta.source, meta.mask.kind) == (("cat", "dog"), "pets", "block")
    assert (meta.image_bytes, meta.masked_image_bytes) == (576, 288)
    files = sorted(path for path in class_folders.rglob("*.png"))
    assert meta.image_file_bytes == sum(files[i].stat().st_size for i in shard.image_ids)


def test_unreadable_files_stop_or_are_listed_at_the_end(class_folders, tmp_path, encoder):
    bad = [class_folders / "cat" / "3.png", class_folders / "dog" / "0.png"]
    for path in bad:
        path.write_bytes(path.read_bytes()[:50])
    arguments = ["prep", class_folders, "--out", tmp_path / "out", *encoder]
    output = call(*arguments, code=1)
    assert f"Error: {bad[0]} cannot be read as an image" in output
    assert not (tmp_path / "out").exists()
    lines = call(*arguments, "--on-error", "skip").splitlines()
    assert lines[-3] == "Skipped 2 unreadable image files:"
    assert [line.partition(" cannot be read")[0] for line in lines[-2:]] == [str(p) for p in bad]
    ids = [open_shard(tmp_path / "out" / f"client-{k}").image_ids for k in range(4)]
    held = open_shard(tmp_path / "out" / "test").image_ids
    assert sorted(np.concatenate([*ids, held])) == [k for k in range(15) if k not in (3, 10)]


def test_an_image_that_vanishes_while_others_are_encoded_is_a_sentence(
    class_folders, tmp_path, encoder, monkeypatch
):
    """The worker's error is the command's, whichever thread met it."""
    real = Encoding.tokens

    def tokens(self, batch):
        for path in class_folders.rglob("*.png"):
            path.unlink()
        return real(self, batch)

    monkeypatch.setattr(Encoding, "tokens", tokens)
    options = [*encoder[:2], "--workers", 2, "--batch-size", 1]
    output = call("prep", class_folders, "--out", tmp_path / "out", *options, code=1)
    assert re.search(r"Error: .*\.png cannot be read as an image: No such file", output)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".prep"]


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_every_mask_kind_encodes_and_is_recorded(kind, fashion_folder, tmp_path, encoder):
    options = [*encoder, "--clients", 1, "--mask", kind, "--mask-ratio", 0.25]
    call("prep", fashion_folder, "--out", tmp_path / "out", *options)
    mask = open_shard(tmp_path / "out" / "test", verify=True).meta.mask
    assert (mask.kind, mask.patches, mask.kept) == (kind, 16, 12)


def test_a_process_with_a_share_says_what_is_left_to_others(fashion_folder, tmp_path, encoder):
    options = [*encoder, "--chunk-images", 10, "--num-shards", 3]
    output = call("prep", fashion_folder, "--out", tmp_path / "out", *options)
    assert "share is finished; 4 of 6 chunks are left to others" in " ".join(output.split())


def test_ctrl_c_says_how_to_go_on(fashion_folder, tmp_path, encoder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Encoding, "tokens", interrupt)
    arguments = ["prep", fashion_folder, "--out", tmp_path / "out", *encoder]
    output = call(*arguments, code=130)
    assert "Stopped: give the same command again to go on" in output
    monkeypatch.undo()
    call(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--mask-ratio", "1"], "The mask ratio must be at least 0 and below 1, not 1.0."),
        (["--mask", "spiral"], "The mask kind 'spiral' is unknown"),
        (["--dtype", "int4"], "The token type 'int4' is unknown"),
        (["--clients", "41"], "40 images cannot be split into 41 parts"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0."),
        (["--on-error", "ignore"], "The choice on error 'ignore' is unknown: use stop or skip."),
        (["--seed", "-1"], "The seed must be 0 to 2**64 - 1, not -1."),
        (["--weights", "none.safetensors"], "There is no .safetensors checkpoint at none"),
        (["--normalization", "other"], "The normalization 'other' is unknown"),
        (["--interpolation", "nearest"], "The interpolation 'nearest' is unknown"),
        (["--device", "abacus"], "The device 'abacus' cannot be used"),
        (["--split", "fair"], "The split 'fair' is unknown"),
        (["--views", "2", "--mask", "fixed"], "2 views of the fixed mask"),
    ],
)
def test_wrong_options_end_in_one_sentence_and_leave_nothing(
    fashion_folder, tmp_path, encoder, change, message
):
    out = tmp_path / "out"
    output = call("prep", fashion_folder, "--out", out, *encoder, *change, code=1)
    assert f"Error: {message}" in output.replace("\n", " ")
    assert "Traceback" not in output
    assert not out.exists()


@pytest.mark.parametrize(
    ("library", "source", "options"),
    [
        ("data_prep.shards.prep", "fashion", []),
        ("pyarrow.parquet", "t.parquet", []),
        ("datasets", "hf:user/birds", []),
        ("torchvision.datasets", "torchvision:CIFAR10", []),
        ("flwr_datasets.partitioner", "fashion", ["--split", "shards:1"]),
    ],
)
def test_a_library_that_is_not_installed_is_named(
    fashion_folder, tmp_path, encoder, monkeypatch, library, source, options
):
    """Each is imported only where it is needed; ``prep`` itself brings timm along."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.chdir(tmp_path)
    Path("t.parquet").touch()
    output = call("prep", source, "--out", "out", *encoder, *options, code=1)
    sentence = f"Error: {library} is not installed: pip install 'flower-ist[prep]'."
    assert sentence in output


def test_the_help_lists_every_mask_and_split_and_the_papers_words(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    output = re.sub(r"\x1b\[[0-9;]*m", "", call("prep", "--help"))
    assert all(line in output for line in (*describe_kinds(), *describe_splits()))
    assert "which the paper calls fixed" in output
    assert "torchvision:CIFAR10" in output
