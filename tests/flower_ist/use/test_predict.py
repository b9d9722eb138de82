"""``flower-ist predict`` on images: as the shard's tokens say, one by one, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from data_prep import PrepError
from data_prep.masks.draw import draw_mask
from data_prep.shards.prep import PrepSettings, prep
from data_prep.sources.open import read_source
from data_prep.stream.labeled import labeled_tokens
from data_prep.stream.open import image_tokens
from data_prep.stream.paths import watched_batches
from data_prep.stream.tokens import open_encoding, prepare
from flower_ist.classifier.predictor import load_classifier, recipe_of
from flower_ist.cli import app
from flower_ist.tokens.recipe import Recipe
from flower_ist.tokens.shard import open_shard
from tests.fakes import ROOT
from tests.fakes.pictures import PictureRun, write_model, write_pictures
from tests.fakes.tiny_encoder import tiny_encoder


def call(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def rows_of(result: Result) -> list[dict[str, str]]:
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(result.stdout.splitlines()))


def test_a_folder_without_labels_is_answered(colors: PictureRun, tmp_path: Path):
    """Pictures that nobody sorted lie in one folder; the answers are the colors they are of."""
    for name in ("red", "blue"):
        shutil.copy(colors.pictures / name / "0.png", tmp_path / f"{name}.png")
    result = call("predict", colors.run, tmp_path, "--encoder", colors.encoder)
    rows = rows_of(result)
    assert [(Path(row["image"]).name, row["predicted"]) for row in rows] == [
        ("blue.png", "blue"),
        ("red.png", "red"),
    ]
    assert list(rows[0]) == ["image", "predicted", "probability"]
    assert result.stderr == "2 images are answered.\n"


def test_tokens_are_those_of_the_shard_under_the_shard_s_masks(colors: PictureRun):
    """The same decoding, sizes, encoder and masks: the stream's tokens with the shard's ids."""
    classifier = load_classifier(colors.run)
    recipe = recipe_of(classifier, colors.run)
    encoding = open_encoding(recipe, str(colors.encoder))
    assert (encoding.mask, encoding.encoder.record) == (recipe.mask, recipe.encoder)
    data = read_source(colors.pictures)
    stored = np.concatenate([*encoding.batches(data, 7)])
    paths = list(data.images.reader.paths)  # type: ignore[union-attr]
    prepared = prepare(encoding, paths)
    assert prepared.batch is not None
    ids = data.image_ids
    tokens = encoding.encoder.encode(prepared.batch.pixels, draw_mask(recipe.mask, ids))
    np.testing.assert_allclose(tokens, stored, atol=1e-5)


def test_pictures_are_read_and_resized_as_the_shard_s_were(tmp_path: Path):
    """Transparent, turned, 12 bits deep: the run's record says what prep was told of them."""
    choices = {"alpha": "ignore", "orientation": "exif", "interpolation": "bilinear"}
    pictures = write_pictures(tmp_path / "pictures", 6)
    turned = Image.Exif()
    turned[0x0112] = 6
    for number, file in enumerate(sorted(pictures.rglob("*.png"))):
        picture = Image.open(file).convert("RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(file, exif=turned if number % 2 else Image.Exif())
    encoder, shards = tiny_encoder(tmp_path), tmp_path / "shards"
    settings = PrepSettings(
        str(pictures), shards, encoder=str(encoder), clients=1, test_share=0.5, **choices
    )
    prep(settings)
    write_model(tmp_path / "run", shards)
    classifier = load_classifier(tmp_path / "run")
    recipe = recipe_of(classifier, tmp_path / "run")
    assert recipe.encoder.interpolation == "bilinear"
    assert recipe.reading == {"alpha": "ignore", "orientation": "exif"}
    stored = open_shard(shards / "test")
    order = {int(i): row for row, i in enumerate(stored.image_ids)}

    def tokens(recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens of the test images by both ways, with the shard's masks."""
        (example,) = labeled_tokens(
            recipe, classifier.class_names, str(pictures), encoder=str(encoder), split="train"
        )
        encoding = open_encoding(recipe, str(encoder))
        data = read_source(pictures, reading=encoding.reading)
        paths = list(data.images.reader.paths)  # type: ignore[union-attr]
        batch = prepare(encoding, paths).batch
        assert batch is not None
        kept = draw_mask(recipe.mask, data.image_ids)
        rows = [row for row, i in enumerate(data.image_ids) if int(i) in order]
        return example[0][0.5][rows], encoding.encoder.encode(batch.pixels, kept)[rows]

    expected, _ = stored.batch([order[i] for i in sorted(order)])
    for found in tokens(recipe):
        np.testing.assert_allclose(found, expected, atol=2e-3)
    usual = Recipe(replace(recipe.encoder, interpolation="bicubic"), recipe.mask)
    for found in tokens(usual):
        assert np.abs(found - expected).max() > 0.05
    header = {"recipe": json.dumps(recipe.to_json() | {"reading": {"colour": "sepia"}})}
    _rewrite(tmp_path / "run" / "model.safetensors", header)
    found = call("predict", tmp_path / "run", pictures, "--encoder", encoder)
    assert found.exit_code == 1
    assert "Images were read with colour, which this release does not know" in found.stderr


def _rewrite(model: Path, header: dict[str, str]) -> None:
    with safe_open(model, framework="numpy") as file:
        before = file.metadata()
    save_file(load_file(model), model, {**before, **header})


def test_a_picture_s_answer_does_not_depend_on_the_others(colors: PictureRun):
    """Its mask is drawn from its content."""
    options = ("--encoder", colors.encoder, "--format", "json", "--top", 3)
    whole = call("predict", colors.run, colors.pictures, *options, "--batch-size", 7)
    assert whole.exit_code == 0, whole.output
    answers = {line["image"]: line for line in map(json.loads, whole.stdout.splitlines())}
    assert len(answers) == 60
    file = colors.pictures / "red" / "7.png"
    (alone,) = map(json.loads, call("predict", colors.run, file, *options).stdout.splitlines())
    assert [t["class"] for t in alone["top"]] == [t["class"] for t in answers[str(file)]["top"]]
    chances = [t["probability"] for t in alone["top"]]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    assert chances == pytest.approx([t["probability"] for t in answers[str(file)]["top"]], abs=1e-4)


def test_lists_and_tables(colors: PictureRun, tmp_path: Path):
    names = [colors.pictures / "red" / "3.png", colors.pictures / "green" / "1.png"]
    table = tmp_path / "some.csv"
    table.write_text("label,path\n" + "".join(f"?,{name}\n" for name in names))
    by_table = call("predict", colors.run, table, "--encoder", colors.encoder)
    listed = "\n".join(map(str, names)) + "\n\n"
    by_list = call("predict", colors.run, "-", "--encoder", colors.encoder, stdin=listed)
    by_name = call("predict", colors.run, *names, "--encoder", colors.encoder)
    assert by_table.stdout == by_list.stdout == by_name.stdout
    assert [row["predicted"] for row in rows_of(by_table)] == ["red", "green"]
    pq.write_table(pa.table({"path": [str(name) for name in names]}), tmp_path / "some.parquet")
    by_parquet = call("predict", colors.run, tmp_path / "some.parquet", "--encoder", colors.encoder)
    assert by_parquet.stdout == by_name.stdout


def test_views_are_averaged_as_logits(colors: PictureRun):
    """By hand from the tokens of the epochs 0, 1 and 2 of the mask."""
    classifier = load_classifier(colors.run)
    file = colors.pictures / "blue" / "2.png"
    recipe = recipe_of(classifier, colors.run)
    ((names, tokens),) = image_tokens(recipe, [str(file)], encoder=str(colors.encoder), views=3)
    assert (names, tokens.shape) == ([str(file)], (1, 3, 16))
    assert np.abs(tokens[0, 0] - tokens[0, 1]).max() > 1e-3
    mean = classifier.logits(tokens[0]).mean(axis=0)
    expected = np.exp(mean) / np.exp(mean).sum()
    options = ("--encoder", colors.encoder, "--views", 3)
    (row,) = rows_of(call("predict", colors.run, file, *options))
    assert float(row["probability"]) == pytest.approx(expected.max(), abs=1e-5)


def test_whole_images(colors: PictureRun):
    """With a ratio of 0 the token is that of all 16 patches; a ratio of 1 is none."""
    classifier = load_classifier(colors.run)
    file = colors.pictures / "green" / "4.png"
    encoding = open_encoding(recipe_of(classifier, colors.run), str(colors.encoder))
    prepared = prepare(encoding, [file])
    assert prepared.batch is not None
    token = encoding.encoder.encode(prepared.batch.pixels, np.arange(16)[None])
    expected = classifier.probabilities(token).max()
    options = ("--encoder", colors.encoder, "--mask-ratio")
    (row,) = rows_of(call("predict", colors.run, file, *options, 0))
    assert float(row["probability"]) == pytest.approx(expected, abs=1e-5)
    assert "must be at least 0 and below 1" in call("predict", colors.run, file, *options, 1).stderr


def test_what_cannot_be_read_stops_or_is_skipped(colors: PictureRun, tmp_path: Path):
    shutil.copytree(colors.pictures / "red", tmp_path / "some")
    (tmp_path / "some" / "notes.txt").write_text("no image")
    whole = (tmp_path / "some" / "0.png").read_bytes()
    (tmp_path / "some" / "0.png").write_bytes(whole[: len(whole) // 2])
    stopped = call("predict", colors.run, tmp_path / "some", "--encoder", colors.encoder)
    assert stopped.exit_code == 1
    assert stopped.stderr.count("\n") == 1
    assert "0.png cannot be read as an image" in stopped.stderr
    assert stopped.stderr.endswith("remove it or use --on-error skip.\n")
    options = ("--encoder", colors.encoder, "--on-error", "skip", "--batch-size", 1)
    names = ("predict", colors.run, tmp_path / "some", tmp_path / "some" / "1.png")
    result = call(*names, *options)
    rows = rows_of(result)
    assert len(rows) == 20
    assert {row["predicted"] for row in rows} == {"red"}
    assert result.stderr.splitlines()[-1] == "20 images are answered; 2 could not be read."
    assert [line[:8] for line in result.stderr.splitlines()[:-1]] == ["Skipped:"] * 2


def test_a_file_is_written_whole_or_not_at_all(colors: PictureRun, tmp_path: Path):
    out = tmp_path / "out.csv"
    good = call("predict", colors.run, colors.pictures, "--encoder", colors.encoder, "--out", out)
    assert good.exit_code == 0
    assert good.stdout == "60 images are answered.\n"
    before = out.read_text()
    (tmp_path / "bad.png").write_text("x")
    options = ("--encoder", colors.encoder, "--out", out)
    assert call("predict", colors.run, tmp_path / "bad.png", *options).exit_code == 1
    assert out.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"out.csv", "bad.png"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.png"], "There is no image, folder, table or shard at none.png: check the path."),
        ([], "Give images or a shard to classify, or --watch FOLDER, not both."),
        (["x", "--watch", "y"], "Give images or a shard"),
        (["{pictures}", "--on-error", "ask"], "The choice on error 'ask' is unknown"),
        (["{pictures}", "--views", "2", "--encoder", "none.safetensors"], "There is no encoder at"),
    ],
)
def test_wrong_input_is_a_sentence(colors: PictureRun, arguments: list[str], sentence: str):
    words = [word.format(pictures=colors.pictures) for word in arguments]
    given = () if "--encoder" in words else ("--encoder", colors.encoder)
    result = call("predict", colors.run, *words, *given)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_wrong_encoder_is_refused_with_what_differs(colors: PictureRun, tmp_path: Path):
    red = colors.pictures / "red"
    missing = call("predict", colors.run, red)
    assert missing.exit_code == 1
    assert "needs the encoder 'tiny' (weights" in missing.stderr
    assert "--encoder and --weights" in missing.stderr
    other = tiny_encoder(tmp_path, image_size=32, patch_size=8)
    wrong = call("predict", colors.run, red, "--encoder", other)
    assert wrong.exit_code == 1
    assert "(weights_sha256 was" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    embedded = call("predict", colors.run, red, "--encoder", "embedded")
    assert "is not the one of the model's tokens (weights_sha256 was" in embedded.stderr


def test_a_model_that_does_not_say_how_its_tokens_were_made(colors: PictureRun, tmp_path: Path):
    file = colors.run / "model.safetensors"
    with safe_open(file, "numpy") as opened:
        header = dict(opened.metadata())
    del header["recipe"]
    save_file(load_file(file), tmp_path / "model.safetensors", header)
    result = call("predict", tmp_path, colors.pictures / "red", "--encoder", colors.encoder)
    assert result.exit_code == 1
    assert "is of an older release, which did not record how images are" in result.stderr
    shard = call("predict", tmp_path, colors.shards / "test")
    assert len(rows_of(shard)) == 12
    header["recipe"] = json.dumps({"encoder": {}, "mask": {}})
    save_file(load_file(file), tmp_path / "model.safetensors", header)
    assert "is not a whole model of this release" in call("predict", tmp_path, colors.run).stderr


def test_names_that_are_no_text(colors: PictureRun, tmp_path: Path):
    name = os.fsdecode(b"red\xff,.png")
    shutil.copy(colors.pictures / "red" / "0.png", tmp_path / name)
    result = call("predict", colors.run, tmp_path, "--encoder", colors.encoder)
    assert result.exit_code == 0
    assert b'red\xff,.png",red,' in result.stdout_bytes
    as_json = call("predict", colors.run, tmp_path, "--encoder", colors.encoder, "--format", "json")
    assert json.loads(as_json.stdout)["image"] == str(tmp_path / name)


def test_files_are_new_once_and_when_they_are_whole(tmp_path: Path):
    """A file that still grows is not ready; one that was removed may come again."""
    found = watched_batches(tmp_path, 2, every=0.001)
    for name in ("a", "b", "c", ".hidden"):
        (tmp_path / name).write_text(name)
    assert next(found) == [tmp_path / "a", tmp_path / "b"]
    assert next(found) == [tmp_path / "c"]
    (tmp_path / "a").unlink()
    (tmp_path / "d").write_text("d")
    assert next(found) == [tmp_path / "d"]
    (tmp_path / "a").write_text("again")
    assert next(found) == [tmp_path / "a"]
    shutil.rmtree(tmp_path)
    with pytest.raises(PrepError, match="cannot be listed"):
        next(found)


@pytest.mark.slow
def test_a_watched_folder_is_answered_as_it_fills(colors: PictureRun, tmp_path: Path):
    """A device takes pictures: each is answered once, a bad one does not stop it."""
    folder, out = tmp_path / "camera", tmp_path / "answers.jsonl"
    folder.mkdir()
    shutil.copy(colors.pictures / "green" / "0.png", folder / "a.png")
    command = [
        *(sys.executable, "-c", "from flower_ist.cli import app; app()"),
        *("predict", str(colors.run), "--watch", str(folder), "--format", "json"),
        *("--out", str(out), "--encoder", str(colors.encoder)),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for_lines(out, 1) == [("a.png", "green")]
        (folder / "b.png").write_text("no image")
        Image.open(colors.pictures / "red" / "1.png").save(folder / "c.png")
        assert wait_for_lines(out, 2)[1] == ("c.png", "red")
    finally:
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "b.png cannot be read as an image" in errors
    assert len(out.read_text().splitlines()) == 2


def wait_for_lines(file: Path, count: int) -> list[tuple[str, str]]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) >= count:
            found = map(json.loads, lines)
            return [(Path(line["image"]).name, line["top"][0]["class"]) for line in found]
        time.sleep(0.05)
    raise AssertionError(f"{file} has not got {count} lines")
