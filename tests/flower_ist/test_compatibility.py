"""What commit 2fcc4eb wrote is read: a shard, and the log of a run of two rounds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from flower_ist.runs.log import read_run
from flower_ist.runs.report import summarize
from flower_ist.tokens.shard import open_shard
from tests.fakes import ROOT
from tests.fakes.shards import IDS, LABELS, make_meta, write_small

WRITTEN = ROOT / "tests" / "fixtures" / "commit-2fcc4eb"


def test_its_shard_is_read_and_verified():
    shard = open_shard(WRITTEN / "shard", verify=True)
    # Rows of int8 with the scales 1, 1/127 and 0: -63.5 becomes -64, half to even.
    tokens, labels = shard.batch(slice(None))
    np.testing.assert_allclose(tokens[0], [127.0, -64.0, 0.0])
    np.testing.assert_allclose(tokens[1], [0.5, 0.25, -1.0], atol=0.005)
    assert labels.tolist() == LABELS.tolist()
    assert shard.image_ids.tolist() == IDS.tolist()
    assert shard.meta.encoder == make_meta().encoder
    assert shard.meta.class_names == ("cat", "dog")


def test_a_shard_written_today_is_the_same_to_the_byte(tmp_path):
    today = write_small(tmp_path)
    for file in sorted((WRITTEN / "shard").iterdir()):
        assert (today / file.name).read_bytes() == file.read_bytes(), file.name


def test_its_run_log_is_read_and_reported():
    rounds = read_run(WRITTEN)
    assert [line["round"] for line in rounds] == [0, 1, 2]
    summary = summarize(WRITTEN)
    assert summary.strategy == "ist"
    assert summary.rounds == 2
    assert summary.wire_bytes_down == sum(line["wire_bytes_down"] for line in rounds)
    assert summary.final_accuracy == pytest.approx(rounds[-1]["accuracy"])


def test_a_run_log_of_today_has_all_its_fields(blob_config, tmp_path):
    from client_app.app import app as client_app
    from flower_ist.runs.app import run_in_process
    from server_app.app import app as server_app

    def fields(line: dict[str, Any]) -> set[str]:
        nested = {f"seconds.{key}" for key in line["seconds"]}
        nested |= {f"client.{key}" for client in line["clients"].values() for key in client}
        return line.keys() | nested

    config = blob_config(num_rounds=1, standardize=True, replay=True, lda_skip=True)
    run_in_process(server_app, client_app, 2, config)
    now = read_run(type(tmp_path)(config["output-dir"]))
    then = [json.loads(line) for line in (WRITTEN / "run.jsonl").read_text().splitlines()]
    for old, new in zip(then[:2], now, strict=True):
        assert fields(old) <= fields(new)
