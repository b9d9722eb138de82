"""``flower-ist export``: files that onnxruntime and torch alone run, equal to the model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from data_prep.encoders.open import open_encoder
from data_prep.encoders.settings import EncoderSettings
from data_prep.images.pixels import network_input
from data_prep.masks.draw import draw_mask
from data_prep.stream.programs import HeadModule
from flower_ist.classifier.mlp import initial_weights
from flower_ist.classifier.predictor import load_classifier
from flower_ist.classifier.skip import LinearSkip
from flower_ist.cli import app
from flower_ist.errors import ArgumentError
from flower_ist.tokens.shard import open_shard
from flower_ist.use.head import Head, slice_head
from flower_ist.use.onnx_graphs import resize_graph
from tests.fakes.pictures import PictureRun


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def exported(colors: PictureRun, out: Path, *options: object) -> Result:
    result = call("export", colors.run, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return result


def torch_probabilities(colors: PictureRun, tokens: np.ndarray) -> np.ndarray:
    """The model as plain PyTorch layers, from the file's tensors."""
    classifier = load_classifier(colors.run)
    head = Head.of(classifier)
    assert head.skip is not None
    with torch.no_grad():
        hidden = torch.from_numpy(tokens)
        for number, (weight, bias) in enumerate(head.layers):
            hidden = torch.relu(hidden) if number else hidden
            hidden = torch.nn.functional.linear(hidden, torch.tensor(weight), torch.tensor(bias))
        skip = torch.tensor(head.skip.weight), torch.tensor(head.skip.bias)
        return (
            (hidden + torch.nn.functional.linear(torch.from_numpy(tokens), *skip))
            .softmax(1)
            .numpy()
        )


def test_a_head_in_onnxruntime_equals_pytorch(colors: PictureRun, tmp_path: Path):
    shard = open_shard(colors.shards / "test")
    result = exported(colors, tmp_path / "m.onnx", "--test", colors.shards / "test")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    tokens, _ = shard.batch(slice(None))
    logits, probabilities = session.run(["logits", "probabilities"], {"token": tokens})
    np.testing.assert_allclose(probabilities, torch_probabilities(colors, tokens), atol=1e-5)
    np.testing.assert_array_equal(logits.argmax(1), probabilities.argmax(1))
    assert f"{(tmp_path / 'm.onnx').stat().st_size:,} bytes." in result.stdout
    right = np.mean(logits.argmax(1) == shard.labels)
    assert f"{100 * right:.2f} % of 12 examples are right; of the whole model's" in result.stdout


def test_the_file_says_what_it_is(colors: PictureRun, tmp_path: Path):
    exported(colors, tmp_path / "m.onnx", "--slice", "2/4")
    about = onnxruntime.InferenceSession(tmp_path / "m.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == ["blue", "green", "red"]
    recipe = json.loads(about["recipe"])
    assert recipe["mask"]["ratio"] == 0.5
    assert recipe["encoder"]["weights_sha256"] == load_classifier(colors.run).encoder_sha256
    assert (about["slice"], about["input"], about["quantized"]) == ("2/4", "token", "")


def test_a_slice_by_hand():
    """Half of four neurons: sums over them count twice. The halves' mean is the whole net."""
    net = initial_weights([3, 4, 2], 0)
    skip = LinearSkip(np.ones((2, 3), np.float32), np.zeros(2, np.float32))
    halves = [slice_head(Head(net, skip), f"{k}/2", {"seed": 5}) for k in (1, 2)]
    for half in halves:
        assert [layer[0].shape for layer in half.layers] == [(2, 3), (2, 2)]
        np.testing.assert_array_equal(half.net["fc2.bias"], net["fc2.bias"])
    rows = [tuple(row) for half in halves for row in half.net["fc1.weight"]]
    assert sorted(rows) == sorted(map(tuple, net["fc1.weight"]))
    tokens = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    mean = np.mean([half.logits(tokens) for half in halves], axis=0)
    np.testing.assert_allclose(mean, Head(net, skip).logits(tokens), atol=1e-6)


def test_a_net_of_two_hidden_layers_is_cut_as_the_run_cut_it():
    net = initial_weights([3, 8, 6, 2], 0)
    alternate = slice_head(Head(net, None), "1/2", {"cut": "alternate"})
    everywhere = slice_head(Head(net, None), "1/2", {"cut": "all"})
    assert [layer[0].shape for layer in alternate.layers] == [(4, 3), (6, 4), (2, 6)]
    assert [layer[0].shape for layer in everywhere.layers] == [(4, 3), (3, 4), (2, 3)]


@pytest.mark.parametrize("part", ["0/4", "5/4", "1", "a/b", "1/9", "-1/4", "1/0"])
def test_slices_that_are_none(part: str):
    with pytest.raises(ArgumentError, match=r"written as k/K|cannot be cut into 9 slices"):
        slice_head(Head(initial_weights([3, 8, 2], 0), None), part, {})
    with pytest.raises(ArgumentError, match="no hidden layer"):
        slice_head(Head(initial_weights([3, 2], 0), None), "1/2", {})


def test_int8_weights(colors: PictureRun, tmp_path: Path):
    """Its probabilities are near those in float32; how near follows from 8 bits."""
    exported(colors, tmp_path / "m.onnx")
    options = ("--quantize", "int8", "--test", colors.shards / "test")
    result = exported(colors, tmp_path / "q.onnx", *options)
    tokens, _ = open_shard(colors.shards / "test").batch(slice(None))
    whole, small = (
        onnxruntime.InferenceSession(tmp_path / name).run(["probabilities"], {"token": tokens})[0]
        for name in ("m.onnx", "q.onnx")
    )
    assert 0 < np.abs(whole - small).max() < 0.1
    assert "% of 12 examples are right" in result.stdout


@pytest.mark.parametrize("shape", [(64, 64), (100, 37), (20, 23), (16, 16), (333, 500)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_resized_as_torch_does(shape: tuple[int, int], interpolation: str):
    """At most one gray value apart, where a half is rounded to the other side, and that is rare."""
    session = onnxruntime.InferenceSession(resize_graph(16, interpolation).SerializeToString())
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    found = session.run(None, {"image": images})[0]
    expected = network_input(images, 16, interpolation).numpy()
    assert np.abs(found - expected).max() <= 1
    assert np.mean(found != expected) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["drawn", "whole"])
def test_from_image_to_probabilities(colors: PictureRun, tmp_path: Path, mask: str):
    """Images of the encoder's own size in, so that no pixel's rounding is in the way."""
    encoder = ("--encoder", colors.encoder, "--with-encoder", "--mask", mask)
    exported(colors, tmp_path / "m.onnx", *encoder)
    exported(colors, tmp_path / "m.pt2", *encoder, "--format", "torch")
    files = sorted(colors.pictures.rglob("*.png"))[::7]
    images = np.stack([np.asarray(Image.open(file).resize((16, 16))) for file in files])
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    classifier = load_classifier(colors.run)
    assert classifier.recipe is not None
    opened = open_encoder(EncoderSettings(encoder=str(colors.encoder)))
    kept = draw_mask(classifier.recipe.mask, np.zeros(1, np.int64))
    if mask == "whole":
        kept = np.arange(16)[None]
    tokens = opened.encode(pixels, np.repeat(kept, len(files), axis=0))
    expected = torch_probabilities(colors, tokens)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    found = session.run(["probabilities"], {"image": images})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert about["mask"] == {"drawn": "of image 0", "whole": "none"}[mask]
    extra = {"class_names": "", "recipe": ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()
    np.testing.assert_allclose(program(pixels.float()).detach().numpy(), expected, atol=1e-5)
    assert json.loads(extra["class_names"]) == ["blue", "green", "red"]


def test_a_head_as_a_torch_program(colors: PictureRun, tmp_path: Path):
    options = ("--format", "torch", "--test", colors.shards / "test")
    result = exported(colors, tmp_path / "m.pt2", *options)
    program = torch.export.load(io.BytesIO((tmp_path / "m.pt2").read_bytes())).module()
    tokens, _ = open_shard(colors.shards / "test").batch(slice(None))
    found = program(torch.from_numpy(tokens)).detach().numpy()
    np.testing.assert_allclose(found, torch_probabilities(colors, tokens), atol=1e-5)
    assert "% of 12 examples are right" in result.stdout
    alone = HeadModule([(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))], None)
    assert alone(torch.zeros(1, 2)).tolist() == [[0.5, 0.5]]


def test_what_is_refused_is_a_sentence(colors: PictureRun, tmp_path: Path):
    for options, sentence in (
        (("--format", "torch", "--quantize", "int8"), "Only ONNX files are quantized"),
        (("--mask", "whole"), "give --with-encoder, too"),
        (("--with-encoder",), "needs the encoder 'tiny'"),
        (("--with-encoder", "--test", colors.shards / "test"), "has no accuracy on tokens"),
        (("--slice", "3/2"), "A slice is written as k/K"),
        (("--test", tmp_path / "none"), "There is no token shard at"),
    ):
        result = call("export", colors.run, "--out", tmp_path / "m", *options)
        assert result.exit_code == 1
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "m").exists()
