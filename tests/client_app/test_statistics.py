"""A shard's statistics: in chunks as at once, and as a packed reply to a message."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from client_app import statistics
from client_app.app import app
from client_app.statistics import shard_statistics
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.statistics.sums import statistics_layout
from flower_ist.tokens.edit import drop, join, joined_meta
from flower_ist.tokens.shard import open_shard
from flower_ist.wire.packing import SQUEEZED, unpack
from flower_ist.wire.protocol import STATISTICS_DTYPE_KEY, STATISTICS_KEY


def ask(blobs: Path, **config: Any) -> Message:
    grid = InProcessGrid(app, 2, {"data-dir": str(blobs)})
    node = list(grid.get_node_ids())[1]
    content = RecordDict({"config": ConfigRecord(config)})
    (reply,) = grid.send_and_receive([Message(content, node, "train")])
    return reply


@pytest.mark.parametrize("rows", [1, 7, 61, 1024])
def test_chunks_add_up_to_the_sums_over_all_tokens(blobs, monkeypatch, rows):
    monkeypatch.setattr(statistics, "_ROWS_PER_CHUNK", rows)
    shard = open_shard(blobs / "client-1")
    found = shard_statistics(shard, gram=True)
    tokens, labels = shard.batch(slice(None))
    tokens = tokens.astype(np.float64)
    assert found.counts.tolist() == np.bincount(labels, minlength=3).tolist()
    for label in range(3):
        np.testing.assert_allclose(found.sums[label], tokens[labels == label].sum(axis=0))
    np.testing.assert_allclose(found.gram, (tokens.T @ tokens)[np.triu_indices(12)])


@pytest.mark.parametrize("kind", ["class-sums", "class-sums-and-gram"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "compact"])
def test_reply_by_hand(blobs, kind, dtype):
    """61 examples, each read once: 64 B an image, 70 B its file, 32 B kept, 24 B a token."""
    reply = ask(blobs, **{STATISTICS_KEY: kind, STATISTICS_DTYPE_KEY: dtype})
    metrics = dict(reply.content.metric_records["metrics"])
    assert metrics.pop("train-seconds") >= 0
    assert metrics == {
        "num-examples": 61,
        "examples-trained": 61,
        "image-bytes": 61 * 64,
        "image-file-bytes": 61 * 70,
        "masked-image-bytes": 61 * 32,
        "token-bytes": 61 * 24,
    }
    (array,) = reply.content.array_records["arrays"].values()
    packed_as = SQUEEZED if dtype == "compact" else "float32"
    tensors = unpack(array, statistics_layout(3, 12, kind, dtype), packed_as)
    assert tensors["counts"].sum() == 61
    assert ("gram" in tensors or "factor" in tensors) == (kind == "class-sums-and-gram")


@pytest.mark.parametrize("config", [{"statistics": "all"}, {"statistics": "class-sums"}])
def test_what_is_not_known_is_refused_with_a_sentence(blobs, config):
    reply = ask(blobs, **config)
    assert "The server asks for statistics" in reply.error.reason


def test_images_that_join_or_leave_count_from_the_next_message_on(blobs, tmp_path):
    """Both messages of a run: two circles join the 61 examples, then the first image leaves."""
    folder = shutil.copytree(blobs, tmp_path / "data") / "client-1"
    grid = InProcessGrid(app, 2, {"data-dir": str(tmp_path / "data")})
    node = list(grid.get_node_ids())[1]
    asked = ConfigRecord({STATISTICS_KEY: "class-sums", STATISTICS_DTYPE_KEY: "float64"})

    def counts() -> list[int]:
        (reply,) = grid.send_and_receive([Message(RecordDict({"config": asked}), node, "train")])
        assert not reply.has_error(), reply.error
        (array,) = reply.content.array_records["arrays"].values()
        layout = statistics_layout(3, 12, "class-sums", "float64")
        found: list[int] = unpack(array, layout)["counts"].tolist()
        assert reply.content.metric_records["metrics"]["num-examples"] == sum(found)
        return found

    before = counts()
    shard = open_shard(folder)
    new = replace(shard.meta, num_examples=2, image_bytes=2, image_file_bytes=2)
    rows = {"tokens": np.zeros((2, 12), np.float16)}
    ids = np.array([10**6, 10**6 + 1])
    join(folder, joined_meta(shard.meta, new), [(rows, np.array([0, 0]), ids)])
    assert counts() == [before[0] + 2, *before[1:]]
    drop(folder, [int(shard.image_ids[0])])
    left = np.bincount([*shard.labels[1:], 0, 0], minlength=3)
    assert counts() == left.tolist()
