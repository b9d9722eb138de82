"""prep on a folder as strangers have it: what is done and left out is said once, and is in JSON."""

import json

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from data_prep.commands.app import app
from tests.fakes.tiny_encoder import tiny_encoder


def prep(source, out, encoder, *options):
    words = ["prep", source, "--out", out, "--encoder", encoder, "--clients", "1", *options]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.output


def test_unusual_images_and_what_is_left_out_are_said_once_and_kept_in_json(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.shards.report.plot_split", lambda report, file: file.touch())
    source = tmp_path / "set [x]"
    for split in ("train", "valid", "test"):
        for name in ("a$b", "[bold]c"):
            (source / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (1, 2, 3)).save(source / split / name / "0.png")
    deep = source / "train" / "a$b" / "1.png"
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(deep)
    Image.new("RGBA", (8, 8), (9, 9, 9, 9)).save(source / "test" / "a$b" / "1.png")
    said = prep(source, tmp_path / "out", tiny_encoder(tmp_path))
    sentences = (
        f"{source / 'valid'} is left out with its 2 files: only train and test are read.",
        "1 train image with 16-bit gray values, at most 4095: the upper 8 of 16 bits are taken, "
        f"such as {deep} (--bit-depth 12 if they use 12 bits).",
        "1 test image with an alpha channel or a transparent color: shown over white, such as",
    )
    assert all(said.count(sentence) == 1 for sentence in sentences)
    assert "[bold]c" in said
    noted = json.loads((tmp_path / "out" / "split.json").read_text())
    assert noted["left_out"] == [sentences[0]]
    assert [each["images"] for each in noted["unusual_images"]] == [1, 1]
    assert noted["unusual_images"][0]["example"] == str(deep)
    told = prep(
        source, tmp_path / "again", tiny_encoder(tmp_path), "--bit-depth", "12", "--alpha", "ignore"
    )
    assert "the upper 8 of 12 bits" in told
    assert "a transparent color: ignored" in told
