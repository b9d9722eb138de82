"""``flower-ist evaluate``: shards and images agree, the page holds what was counted."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from flower_ist.classifier.predictor import load_classifier
from flower_ist.cli import app
from flower_ist.tokens.shard import open_shard
from flower_ist.use.evaluate import evaluate, labeled_shards
from flower_ist.use.page import write_report
from tests.fakes.pictures import PictureRun
from tests.fakes.shards import edit_meta


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_shards(colors: PictureRun, tmp_path: Path):
    """Two clients' shards and the test shard: their owners are told apart."""
    names = [colors.shards / name for name in ("client-0", "client-1", "test")]
    result = call("evaluate", colors.run, *names, "--out", tmp_path / "found")
    assert result.exit_code == 0, result.output
    classifier = load_classifier(colors.run)
    shards = {name.name: open_shard(name) for name in names}
    accuracies = {
        name: (classifier.probabilities(s.tokens).argmax(axis=1) == s.labels).sum() / len(s)
        for name, s in shards.items()
    }
    found = json.loads((tmp_path / "found" / "evaluation.json").read_text())
    assert {name: each["value"] for name, each in found["clients"].items()} == accuracies
    assert found["examples"] == sum(map(len, shards.values()))
    low, high = found["accuracy_interval"]
    assert low < found["accuracy"] < high or found["accuracy"] == 1
    last = f"{100 * found['accuracy']:.2f} % of 60 examples are right (95 % interval"
    assert last in result.stdout
    assert "client-1" in result.stdout
    assert "recall %" in result.stdout


def test_images_have_the_shard_s_tokens(colors: PictureRun, tmp_path: Path):
    """The whole folder, under prep's ids: the accuracy is that of all shards together."""
    options = ("--encoder", colors.encoder, "--mask-ratios", "0,0.75", "--out", tmp_path / "images")
    result = call("evaluate", colors.run, colors.pictures, *options)
    assert result.exit_code == 0, result.output
    shards = [colors.shards / name for name in ("client-0", "client-1", "test")]
    call("evaluate", colors.run, *shards, "--out", tmp_path / "shards")
    of_images, of_shards = (
        json.loads((tmp_path / name / "evaluation.json").read_text())
        for name in ("images", "shards")
    )
    assert of_images["classes_recall"] == of_shards["classes_recall"]
    # Shards hold float16.
    assert of_images["loss"] == pytest.approx(of_shards["loss"], rel=2e-2)
    assert list(of_images["mask_ratios"]) == ["0.5", "0", "0.75"]
    assert of_images["mask_ratios"]["0.5"]["value"] == of_images["accuracy"]
    assert {each["examples"] for each in of_images["mask_ratios"].values()} == {60}


def test_the_folder_s_files_agree(colors: PictureRun, tmp_path: Path):
    out = tmp_path / "found"
    options = ("--encoder", colors.encoder, "--mask-ratios", "0", "--out", out)
    assert call("evaluate", colors.run, colors.pictures, *options).exit_code == 0
    assert {path.name for path in out.iterdir()} == {
        *("evaluation.html", "evaluation.json", "classes.csv", "confusion.csv"),
        *("confusion.png", "reliability.png", "mask-ratios.png"),
    }
    header, *rows = csv.reader((out / "confusion.csv").read_text().splitlines())
    assert header == ["label", "blue", "green", "red"]
    counts = np.array([row[1:] for row in rows], int)
    assert counts.sum() == 60
    found = json.loads((out / "evaluation.json").read_text())
    assert counts.trace() / 60 == found["accuracy"]
    page = (out / "evaluation.html").read_text()
    assert len(re.findall("<img ", page)) == 3
    assert "http" not in page.replace("http-equiv", "")
    for name in ("confusion", "reliability", "mask-ratios"):
        picture = imread(out / f"{name}.png")
        assert picture.shape[0] > 200
        assert picture[..., :3].std() > 0.01


def test_names_are_text_on_the_page(colors: PictureRun, tmp_path: Path):
    """A class that is called like a tag, a formula or a markup stays a name."""
    names = ("<script>1</script>", "$\\frac$", "[red]x[/red]")
    shard = tmp_path / "shard"
    shutil.copytree(colors.shards / "test", shard)
    edit_meta(shard, lambda meta: meta.update(class_names=list(names)))
    classifier = replace(load_classifier(colors.run), class_names=names)
    found = evaluate(classifier, labeled_shards(classifier, [open_shard(shard)]))
    page = write_report(found, tmp_path / "out", "run <1>", "shard").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;1&lt;/script&gt;" in page
    assert "[red]x[/red]" in page


def test_what_is_refused_is_a_sentence(colors: PictureRun, tmp_path: Path):
    shutil.copytree(colors.pictures / "red", tmp_path / "some" / "red")
    shutil.copytree(colors.pictures / "blue", tmp_path / "some" / "violet")
    shutil.copytree(colors.shards / "test", tmp_path / "other")
    edit_meta(tmp_path / "other", lambda meta: meta.update(class_names=["x", "y", "z"]))
    encoder = ("--encoder", colors.encoder)
    (tmp_path / "there").mkdir()
    for arguments, sentence in (
        ((tmp_path / "some", *encoder), "images of the class 'violet', which"),
        ((tmp_path / "other",), "The shard's classes are not the model's: only the shard has"),
        ((tmp_path / "none", *encoder), "is no source of images"),
        ((colors.pictures, *encoder, "--mask-ratios", "a"), "mask ratios 'a' cannot be read"),
        ((colors.pictures, *encoder, "--mask-ratios", "1"), "mask ratio must be at least 0 and"),
        ((colors.pictures, colors.pictures), "Give token shards, or one source of labeled"),
        ((colors.shards / "test", "--out", tmp_path / "there"), "exists already"),
    ):
        result = call("evaluate", colors.run, *arguments)
        assert result.exit_code == 1
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
    (tmp_path / "some" / "red" / "0.png").write_text("no image")
    shutil.rmtree(tmp_path / "some" / "violet")
    skipping = ("--on-error", "skip", "--mask-ratios", "none")
    result = call("evaluate", colors.run, tmp_path / "some", *encoder, *skipping)
    assert result.exit_code == 0
    assert "% of 19 examples are right" in result.stdout
    assert "0.png cannot be read" in result.stderr
