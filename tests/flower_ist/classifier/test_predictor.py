"""Reading a model file and predicting with it: by hand, refusals, and the command."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from typer.testing import CliRunner, Result

from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.classifier.mlp import initial_weights, layers_of, logits
from flower_ist.classifier.predictor import Classifier, ClassifierError, load_classifier
from flower_ist.classifier.skip import LinearSkip
from flower_ist.cli import app
from flower_ist.statistics.ridge import RidgePath, ridge_head
from flower_ist.statistics.sums import Statistics
from flower_ist.tokens.shard import TokenShard, open_shard
from tests.fakes.shards import BLOB_CLASSES, edit_meta, write_blobs

# The net says (x1, x2); the fixed head says (0.7, 0.3), whatever the token.
NET = {"fc1.weight": np.eye(2, dtype=np.float32), "fc1.bias": np.zeros(2, np.float32)}
SKIP = {
    "skip.weight": np.zeros((2, 2), np.float32),
    "skip.bias": np.array([0.7, 0.3], np.float32),
}
HEADER = {
    "format": "flower-ist-mlp",
    "dims": "[2, 2]",
    "class_names": '["cat", "dog"]',
    "encoder": "vit",
    "encoder_sha256": "00",
}


def write(file: Path, tensors: dict[str, Any], **changes: str | None) -> Path:
    header = {key: value for key, value in {**HEADER, **changes}.items() if value is not None}
    save_file(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, file, header
    )
    return file


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def shard(tmp_path: Path) -> TokenShard:
    return open_shard(write_blobs(tmp_path, "shard", 50, seed=3))


def trained(shard: TokenShard) -> dict[str, np.ndarray]:
    """Return a ridge head for the blobs: it is right most of the time."""
    statistics = Statistics.empty(3, 12, gram=True)
    statistics.add_tokens(*shard.batch(slice(None)))
    return ridge_head(RidgePath.of(statistics).solve(1.0))


def model_of_blobs(file: Path, shard: TokenShard, scale: float = 0.0) -> Path:
    head = trained(shard)
    tensors = initial_weights([12, 8, 3], 0) if scale else head
    if scale:
        tensors |= {
            "skip.weight": scale * head["fc1.weight"],
            "skip.bias": scale * head["fc1.bias"],
        }
    names = '["circle", "square", "star"]'
    sha = "0" * 64
    return write(file, tensors, class_names=names, encoder_sha256=sha)


def test_a_net_alone_by_hand(tmp_path: Path):
    """softmax(log 3, 0) = (3/4, 1/4)."""
    classifier = load_classifier(write(tmp_path / "model", NET))
    found = classifier.probabilities(np.array([[math.log(3), 0], [5, 5]]))
    np.testing.assert_allclose(found, [[0.75, 0.25], [0.5, 0.5]], rtol=1e-6)
    assert classifier.class_names == ("cat", "dog")
    assert (classifier.dim, classifier.encoder, classifier.encoder_sha256) == (2, "vit", "00")


def test_a_ridge_head_inside_by_hand(tmp_path: Path):
    """The net says (0, log 3), the head (0.7, 0.3): e^0.7 against 3 e^0.3."""
    file = write(tmp_path / "model", {**NET, **SKIP})
    found = load_classifier(file).probabilities(np.array([[0, math.log(3)]]))
    first = math.exp(0.7) / (math.exp(0.7) + 3 * math.exp(0.3))
    np.testing.assert_allclose(found, [[first, 1 - first]], rtol=1e-6)


def test_a_model_with_a_head_of_another_kind_is_refused(tmp_path: Path):
    """As of commit 2fcc4eb, whose ridge head predicted beside the net."""
    head = {name.replace("skip", "ridge"): tensor for name, tensor in SKIP.items()}
    file = write(tmp_path / "model", {**NET, **head}, ridge_blend="2.0")
    with pytest.raises(ClassifierError, match=r"is not a whole model of this release.*ridge"):
        load_classifier(file)


@pytest.mark.parametrize("scale", [0.0, 5.0])
def test_it_says_what_the_evaluation_says(tmp_path: Path, shard: TokenShard, scale: float):
    file = model_of_blobs(tmp_path / "model", shard, scale)
    arrays = load_file(file)
    skip = None
    if scale:
        skip = LinearSkip(arrays.pop("skip.weight"), arrays.pop("skip.bias"))
    accuracy, loss = evaluate_arrays(arrays, shard, skip)
    probabilities = load_classifier(file).probabilities(shard.tokens)
    right = probabilities[np.arange(50), shard.labels]
    assert (probabilities.argmax(axis=1) == shard.labels).mean() == accuracy > 0.7
    assert -np.log(right).mean() == pytest.approx(loss, rel=1e-5)


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0, 1e4), count=st.integers(0, 5))
def test_probabilities_are_probabilities(seed, scale, count):
    weights = initial_weights([4, 3], 0)
    net = layers_of(weights)
    classifier = Classifier(BLOB_CLASSES, 4, "vit", "", partial(logits, net))
    tokens = scale * np.random.default_rng(seed).normal(size=(count, 4))
    found = classifier.probabilities(tokens)
    assert found.shape == (count, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-9)
    assert (found >= 0).all()


def test_more_tokens_than_a_batch(tmp_path: Path):
    classifier = load_classifier(write(tmp_path / "model", NET))
    tokens = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float16)
    tokens.flags.writeable = False
    found = classifier.probabilities(tokens)
    np.testing.assert_array_equal(found.argmax(axis=1), tokens.argmax(axis=1))
    np.testing.assert_array_equal(found[4990:], classifier.probabilities(tokens[4990:]))


@pytest.mark.parametrize("shape", [(2,), (3, 3), (1, 2, 3)])
def test_tokens_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]):
    classifier = load_classifier(write(tmp_path / "model", NET))
    with pytest.raises(ClassifierError, match=r"but this model needs \[n, 2\]: use those of its"):
        classifier.probabilities(np.zeros(shape))


def test_a_run_s_folder_will_do(tmp_path: Path):
    write(tmp_path / "model.safetensors", NET)
    assert load_classifier(tmp_path).class_names == ("cat", "dog")


HALF = {name: tensor.astype(np.float16) for name, tensor in NET.items()}


def test_float16_weights_are_read(tmp_path: Path):
    found = load_classifier(write(tmp_path / "model", HALF)).probabilities(np.zeros((1, 2)))
    np.testing.assert_allclose(found, [[0.5, 0.5]])


@pytest.mark.parametrize(
    ("tensors", "header", "sentence"),
    [
        (NET, {"format": None}, "is of format None instead of 'flower-ist-mlp'"),
        (NET, {"format": "other"}, "is of format 'other'"),
        (NET, {"class_names": None}, "its header lacks 'class_names'"),
        (NET, {"class_names": "cat"}, "is not a whole model of this release"),
        (NET, {"class_names": "[" * 100_000}, "is not a whole model of this release"),
        (NET, {"class_names": '["cat"]'}, "it has 1 class names for 2 classes"),
        (NET, {"class_names": "[1, 2]"}, "class_names is not a list of strings"),
        (
            {
                **NET,
                "skip.weight": np.zeros((2, 3), np.float32),
                "skip.bias": SKIP["skip.bias"],
            },
            {},
            r"its fixed head is {'skip.weight': \(2, 3\)",
        ),
        ({**NET, "fc1.bias": np.zeros(3, np.float32)}, {}, "are not the layers fc1, fc2"),
        ({"other": NET["fc1.bias"]}, {}, "are not the layers fc1, fc2"),
        ({}, {}, "are not the layers fc1, fc2"),
        ({**NET, "fc1.bias": np.array([0, np.nan], np.float32)}, {}, "finite numbers only"),
        ({**NET, "fc1.bias": np.zeros(2, np.int64)}, {}, "finite numbers only"),
    ],
)
def test_files_of_no_use_are_refused(
    tmp_path: Path, tensors: dict[str, Any], header: dict[str, Any], sentence: str
):
    file = write(tmp_path / "model", tensors, **header)
    with pytest.raises(ClassifierError, match=sentence) as caught:
        load_classifier(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path):
    file = tmp_path / "model"
    with pytest.raises(ClassifierError, match=f"There is no model at {file}: check the path"):
        load_classifier(file)
    with pytest.raises(ClassifierError, match="There is no model at"):
        load_classifier(tmp_path)
    for content in (b"", b"\0" * 40, b"\xff" * 1000):
        file.write_bytes(content)
        with pytest.raises(ClassifierError, match="is not a safetensors file"):
            load_classifier(file)
    file.write_bytes(write(tmp_path / "good", NET).read_bytes()[:-3])
    with pytest.raises(ClassifierError, match="is not a safetensors file"):
        load_classifier(file)
    save_torch({"fc1.bias": torch.zeros(2, dtype=torch.bfloat16)}, file, HEADER)
    # numpy knows the dtype where onnx was imported, and then it is no dtype of numbers.
    with pytest.raises(ClassifierError, match=r"is not a safetensors file|not hold finite numbers"):
        load_classifier(file)


def test_the_csv_by_hand(tmp_path: Path, shard: TokenShard):
    file = model_of_blobs(tmp_path / "model", shard)
    found = load_classifier(file).probabilities(shard.tokens)
    result = call("predict", file, tmp_path / "shard")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert tuple(rows[0]) == ("image_id", "label", "predicted", "probability")
    assert len(rows) == 50
    assert rows[7] == {
        "image_id": "7",
        "label": BLOB_CLASSES[shard.labels[7]],
        "predicted": BLOB_CLASSES[found[7].argmax()],
        "probability": f"{found[7].max():.6f}",
    }


def test_names_with_commas_and_quotes_stay_whole(tmp_path: Path, shard: TokenShard):
    names = ('a "b", c', "square", "star")
    file = model_of_blobs(tmp_path / "model", shard)
    edit_meta(tmp_path / "shard", lambda meta: meta.update(class_names=list(names)))
    result = call("predict", file, tmp_path / "shard")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert {row["label"] for row in rows} == set(names)


def test_other_classes_have_no_accuracy(tmp_path: Path, shard: TokenShard):
    """Images that nobody has sorted yet can be of one class, say ``unknown``."""
    file = model_of_blobs(tmp_path / "model", shard)
    edit_meta(tmp_path / "shard", lambda meta: meta.update(class_names=["un", "known", "x"]))
    result = call("predict", file, tmp_path / "shard")
    assert result.stderr == "50 examples; there is no accuracy, as their classes are others.\n"
    predicted = {row["predicted"] for row in csv.DictReader(result.stdout.splitlines())}
    assert predicted <= set(BLOB_CLASSES)


def test_tokens_of_another_encoder_are_refused(tmp_path: Path, shard: TokenShard):
    file = write(tmp_path / "model", NET)
    with pytest.raises(ClassifierError, match="are of the encoder blobs, whose weights are not"):
        load_classifier(file).check_space(shard.meta.encoder)


def test_tokens_of_another_layer_of_the_encoder_are_refused(tmp_path: Path, shard: TokenShard):
    """The weights are the same ones; a model of an older release says nothing but these."""
    settings = "image_size=8 patch_size=2 pool=cls normalisation=imagenet layer=0"
    older = load_classifier(model_of_blobs(tmp_path / "older", shard))
    classifier = replace(older, encoder_settings=settings)
    classifier.check_space(shard.meta.encoder)
    edit_meta(tmp_path / "shard", lambda meta: meta["encoder"].update(layer=2, pool="mean"))
    other = open_shard(tmp_path / "shard").meta.encoder
    older.check_space(other)
    with pytest.raises(ClassifierError) as caught:
        classifier.check_space(other)
    assert str(caught.value) == (
        "The shard's tokens were not made as those that the model was trained on (pool was cls and "
        "is mean; layer was 0 and is 2): encode the images with the model's settings."
    )


def test_the_encoders_settings_are_read_from_the_header(tmp_path: Path):
    file = write(tmp_path / "model", NET, encoder_settings="layer=2")
    assert load_classifier(file).encoder_settings == "layer=2"
    assert load_classifier(write(tmp_path / "model", NET)).encoder_settings == ""


def test_a_path_that_cannot_be_looked_at_is_a_sentence(tmp_path: Path):
    with pytest.raises(ClassifierError, match=r"File name too long|There is no model"):
        load_classifier(tmp_path / ("x" * 300))


def test_the_command(tmp_path: Path, shard: TokenShard):
    file, out = model_of_blobs(tmp_path / "model", shard, 2.0), tmp_path / "out.csv"
    found = load_classifier(file).probabilities(shard.tokens).argmax(axis=1)
    accuracy = (found == shard.labels).mean()
    result = call("predict", file, tmp_path / "shard", "--out", out)
    assert result.exit_code == 0
    assert result.output == f"{100 * accuracy:.2f} % of 50 examples are right.\n"
    printed = call("predict", file, tmp_path / "shard")
    assert printed.stdout == out.read_text()
    assert printed.stderr == result.stdout


def test_the_command_fails_with_a_sentence(tmp_path: Path, shard: TokenShard):
    file = model_of_blobs(tmp_path / "model", shard)
    for arguments, sentence in (
        ((tmp_path / "none", tmp_path / "shard"), "Error: There is no model at"),
        ((file, tmp_path / "none"), "There is no image, folder, table or shard at"),
        (
            (file, tmp_path / "shard", "--out", tmp_path / "no" / "x"),
            "cannot be written (No such",
        ),
    ):
        result = call("predict", *arguments)
        assert result.exit_code == 1
        assert sentence in result.output
        assert result.output.count("\n") == 1
