"""The commands ``probe``, ``probe-pixels`` and ``demo-tokens``, with a tiny untrained ViT."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_prep.commands import demo
from data_prep.commands.app import app
from data_prep.shards.prep import PrepSettings, prep
from flower_ist.tokens.shard import open_shard
from tests.fakes.tiny_encoder import tiny_encoder


def call(*arguments, fails=False):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == int(fails), result.output
    return " ".join(result.output.split())


@pytest.fixture
def encoded(tmp_path, monkeypatch):
    """Encode a source; a picture would take longer than all else here."""
    monkeypatch.setattr("data_prep.shards.report.plot_split", lambda report, file: file.touch())
    encoder = str(tiny_encoder(tmp_path))

    def encode(source, name="shards", **options):
        prep(PrepSettings(str(source), tmp_path / name, encoder=encoder, workers=0, **options))
        return tmp_path / name

    return encode


def test_probes_read_tokens_and_masked_pixels(encoded, fashion_folder):
    out = encoded(fashion_folder, clients=3)
    clients = [out / f"client-{k}" for k in range(3)]
    tokens = call("probe", *clients, "--test", out / "test")
    assert "Linear probe on tokens: test accuracy" in tokens
    assert "40 train, 20 test, 16 features" in tokens
    pixels = call("probe-pixels", fashion_folder, *clients, "--test", out / "test")
    assert "Linear probe on masked pixels: test accuracy" in pixels
    assert "40 train, 20 test, 64 features" in pixels


def test_pixels_of_class_folders_are_probed_where_all_are_of_one_size(encoded, tmp_path):
    for name, count, size in (("cat", 10, (5, 6)), ("dog", 5, (7, 4))):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for k in range(count):
            Image.new("L", size, 9 * k).save(tmp_path / "pets" / name / f"{k}.png")
    out = encoded(tmp_path / "pets", clients=1)
    arguments = ["probe-pixels", tmp_path / "pets", out / "client-0", "--test", out / "test"]
    assert "Error: pets has images of" in call(*arguments, fails=True)
    for path in (tmp_path / "pets" / "dog").iterdir():
        Image.new("L", (5, 6)).save(path)
    assert "12 train, 3 test, 30 features" in call(*arguments)


def test_shards_of_different_classes_are_not_probed_together(encoded, fashion_folder, tmp_path):
    np.savez(tmp_path / "set.npz", x=np.zeros((9, 4, 4), np.uint8), y=np.arange(9) % 2)
    one = encoded(fashion_folder, clients=1)
    other = encoded(tmp_path / "set.npz", "other", clients=1)
    both = [one / "client-0", other / "client-0"]
    first, second = both
    for arguments in (
        [*both, "--test", one / "test"],
        [first, "--test", one / "test", "--test", second],
    ):
        output = call("probe", *arguments, fails=True)
        assert f"Error: {second} and {first} have different classes:" in output


def test_shards_of_different_encoders_are_not_probed_together(encoded, fashion_folder):
    """Both are 16 wide: only the meta data tell them apart."""
    one = encoded(fashion_folder, clients=1)
    other = encoded(fashion_folder, "other", clients=1, pool="mean")
    output = call("probe", one / "client-0", "--test", other / "test", fails=True)
    assert "(encoder.pool was cls and is mean)" in output


def test_demo_tokens_are_balanced_small_and_made_again_bit_for_bit(
    fashion_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(demo, "PER_CLASS", {"train": 4, "test": 2})
    encoder = tiny_encoder(tmp_path)
    for name in ("a", "b"):
        call("demo-tokens", fashion_folder, "--out", tmp_path / name, "--encoder", encoder)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [*(f"test-{k}.json" for k in range(2)), *(f"train-{k}.json" for k in range(4))]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        shard = open_shard(tmp_path / "a" / name)
        assert np.bincount(shard.labels).tolist() == [1] * 10
        assert (shard.meta.token_dtype, shard.meta.encoder.name) == ("int8", "tiny")
        assert shard.meta.client == f"demo-{name[:-5]}"
    assert json.loads((tmp_path / "a" / "test-0.json").read_text())["split"] == "test"


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        ("prep", "SOURCE is"),
        ("demo-tokens", "FASHION_MNIST is"),
        ("probe", "TRAIN... are"),
        ("probe-pixels", "SOURCE holds"),
    ],
)
def test_every_command_explains_its_arguments(command, argument):
    assert argument in call(command, "--help")
