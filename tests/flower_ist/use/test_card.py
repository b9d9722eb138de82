"""The model card: its figures are the log's, and names stay text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from client_app.app import app as client_app
from data_prep.encoders.open import EMBEDDED
from data_prep.encoders.timm import has_vit, timm
from data_prep.encoders.weights import file_sha256
from flower_ist.files import NotWrittenError
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.tokens.shard import open_shard
from flower_ist.use.card import card, write_card
from flower_ist.use.licenses import EMBEDDED_SHA256, LICENSES, license_of
from server_app.app import app as server_app
from tests.fakes.runs import ROUNDS, SUMMARY
from tests.fakes.shards import make_meta

LAST: dict[str, Any] = {**ROUNDS[-1], "seed": 3, "settings": {"privacy-noise": 0.0}}
LINES = [*ROUNDS[:-1], LAST]


def head_of(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert found
    content: dict[str, Any] = yaml.safe_load(found[1])
    return content


def test_a_run_ends_with_its_card(blob_config: Callable[..., dict[str, Any]], blobs: Path):
    config = blob_config()
    run_in_process(server_app, client_app, 4, config)
    run = Path(config["output-dir"])
    text = (run / "README.md").read_text()
    last = read_run(run)[-1]
    assert f"{100 * last['accuracy']:.2f} % of 300 test examples" in text
    assert "| clients | 4 with 60 to 63 examples each, 246 in total |" in text
    total = sum(line["wire_bytes_down"] for line in read_run(run))
    assert f"| bytes on the wire | {total:,} down," in text
    assert "circle, square, star." in text
    assert "8 of 16 patches" in text
    (result,) = head_of(text)["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": last["accuracy"]}]
    assert write_card(run, open_shard(blobs / "test").meta, 300, {}).read_text() != text


def test_a_card_that_could_not_be_written_is_written_by_a_resume(
    blob_config: Callable[..., dict[str, Any]],
):
    config = blob_config(num_rounds=1)
    run = Path(config["output-dir"])
    (run / "README.md").mkdir(parents=True)
    with pytest.raises(NotWrittenError, match=r"README.md cannot be written"):
        run_in_process(server_app, client_app, 4, config)
    assert (run / "model.safetensors").exists()
    (run / "README.md").rmdir()
    before = read_run(run)
    run_in_process(server_app, client_app, 4, {**config, "resume": True})
    text = (run / "README.md").read_text()
    assert "| clients | 4 |" in text
    assert f"{100 * before[-1]['accuracy']:.2f} % of 300 test examples" in text
    assert read_run(run) == before


def test_figures_by_hand():
    """6 of 8 right: Wilson's interval is 40.93 to 92.85 %."""
    text = card(SUMMARY, LINES, make_meta(), 8, {"a": 5, "b": 7, "c": 0}, 1234)
    assert "75.00 % of 8 test examples" in text
    assert "95 % interval 40.93 to 92.85 %" in text
    assert "had 87.50 %, but was chosen on the same examples" in text
    assert "3 with 5 to 7 examples each, 12 in total" in text
    assert "8,001,500 down, 4,002,500 up" in text
    assert "| saved on the model | 70.0 % |" in text
    assert "(1,234 bytes)" in text
    noisy = {**LAST, "settings": {"privacy-noise": 1.5, "privacy-clip": 2.0}}
    assert "clip 2, noise 1.5" in card(SUMMARY, [noisy], make_meta(), 8, {}, 0)
    silent = {**LAST, "accuracy": None}
    assert "was not evaluated" in card(SUMMARY, [silent], make_meta(), 8, {}, 0)


def test_names_are_text():
    names = ("a | b", "<script>", "*[x](y)*", "line\nbreak\x1b[31m", "---")
    meta = make_meta(class_names=names, source='x"\n---\nkey: 1')
    text = card(replace(SUMMARY, name="# <b>run"), LINES, meta, 8, {}, 0)
    assert "<script>" not in text
    assert r"\<script\>" in text
    assert r"a \| b" in text
    assert r"\*\[x\](y)\*" in text
    assert "\x1b" not in text
    head = head_of(text)
    assert head["model-index"][0]["results"][0]["dataset"]["name"] == 'x"\n---\nkey: 1'
    assert set(head) == {"library_name", "pipeline_tag", "tags", "metrics", "model-index"}
    assert json.dumps(head)


def test_licenses_are_timm_s():
    found: dict[str, set[str]] = {}
    for name in timm.list_pretrained():
        if has_vit(name):
            tag = name.partition(".")[2]
            found.setdefault(tag, set()).add(timm.get_pretrained_cfg(name).license)
    assert {tag: found[tag] for tag in LICENSES} == {tag: {LICENSES[tag]} for tag in LICENSES}


def test_the_license_of_an_encoder():
    encoder = make_meta().encoder
    assert license_of(replace(encoder, name="vit_small_patch16_224.dino")) == "apache-2.0"
    assert license_of(encoder).startswith("not recorded")
    assert file_sha256(EMBEDDED) == EMBEDDED_SHA256
    assert "MIT" in license_of(replace(encoder, weights_sha256=EMBEDDED_SHA256))
