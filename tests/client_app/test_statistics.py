"""A shard's statistics: in chunks as at once, and as a packed reply to a message."""

from __future__ import annotations

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
from flower_ist.tokens.shard import open_shard
from flower_ist.wire.layout import unpack
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
@pytest.mark.parametrize("dtype", ["float64", "float32", "int16"])
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
    tensors = unpack(array, statistics_layout(3, 12, kind, dtype))
    assert tensors["counts"].sum() == 61
    assert ("gram" in tensors or "factor" in tensors) == (kind == "class-sums-and-gram")


@pytest.mark.parametrize("config", [{"statistics": "all"}, {"statistics": "class-sums"}])
def test_what_is_not_known_is_refused_with_a_sentence(blobs, config):
    reply = ask(blobs, **config)
    assert "The server asks for statistics" in reply.error.reason
