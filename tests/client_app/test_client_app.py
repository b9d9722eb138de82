"""The ClientApp itself: what it replies, packed or not, and what it says of its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from client_app.app import app
from flower_ist.classifier.mlp import initial_weights
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.tokens.edit import drop
from flower_ist.tokens.meta import content_digest
from flower_ist.tokens.shard import open_shard
from flower_ist.wire.layout import layout_of, layout_to_text
from flower_ist.wire.packing import pack, unpack
from flower_ist.wire.protocol import LAYOUT_KEY, PACKED_KEY
from tests.fakes.shards import replace_array, write_blobs

CONFIG = {
    "server-round": 1,
    "local-steps": 6,
    "batch-size": 10,
    "learning-rate": 0.01,
    "seed": 0,
}
WEIGHTS = initial_weights([12, 7, 3], seed=0)


def ask(blobs: Path, kind: str, **records: Any) -> Message:
    grid = InProcessGrid(app, 2, {"data-dir": str(blobs)})
    node = list(grid.get_node_ids())[1]
    (reply,) = grid.send_and_receive([Message(RecordDict(records), node, kind)])
    assert not reply.has_error(), reply.error
    return reply


def ordinary() -> ArrayRecord:
    return ArrayRecord({name: Array(weight) for name, weight in WEIGHTS.items()})


def test_packed_and_ordinary_arrays_are_trained_alike(blobs):
    layout = layout_of(WEIGHTS)
    plain = ask(blobs, "train", arrays=ordinary(), config=ConfigRecord(CONFIG))
    packed = ask(
        blobs,
        "train",
        arrays=ArrayRecord({PACKED_KEY: pack(WEIGHTS, layout)}),
        config=ConfigRecord({**CONFIG, LAYOUT_KEY: layout_to_text(layout)}),
    )
    trained = unpack(packed.content.array_records["arrays"][PACKED_KEY], layout)
    assert plain.content.array_records["arrays"].keys() == WEIGHTS.keys()
    for name, array in plain.content.array_records["arrays"].items():
        assert array.numpy().tobytes() == trained[name].tobytes()
        assert not np.array_equal(trained[name], WEIGHTS[name])


def test_figures_of_a_reply_by_hand(blobs):
    """6 steps of 10 examples: 64 B an image, 70 B its file, 32 B kept, 12 float16 a token."""
    reply = ask(blobs, "train", arrays=ordinary(), config=ConfigRecord(CONFIG))
    metrics = dict(reply.content.metric_records["metrics"])
    assert metrics.pop("train-loss") > 0
    assert metrics.pop("train-seconds") >= 0
    assert metrics == {
        "num-examples": 61,
        "local-steps": 6,
        "examples-trained": 60,
        "image-bytes": 60 * 64,
        "image-file-bytes": 60 * 70,
        "masked-image-bytes": 60 * 32,
        "token-bytes": 60 * 24,
    }


def test_facts(blobs):
    facts = ask(blobs, "query").content.config_records["facts"]
    assert dict(facts) == {
        "client-name": "client-1",
        "num-examples": 61,
        "token-dim": 12,
        "token-dtype": "float16",
        "class-names": ["circle", "square", "star"],
        "encoder-sha256": "0" * 64,
        "encoder-settings": "image_size=8 patch_size=2 pool=cls normalisation=imagenet layer=0",
        "shard": content_digest(open_shard(blobs / "client-1").meta),
    }


def test_facts_come_again_once_the_data_have_changed(tmp_path):
    """With the first reply from the changed shard, and not with the next; a digest, if not private.

    A client that was never asked, as after a restart, tells them with its first reply.
    """
    shard = write_blobs(tmp_path, "mine", 30, seed=1)
    private = {"privacy-clip": 1.0, "privacy-noise": 1.0}
    nodes = [{"data-path": str(shard)}, {"data-path": str(shard), **private}]
    grid = InProcessGrid(app, 2, {}, nodes)

    def ask(kind: str) -> list[dict[str, Any]]:
        """Return the facts in both replies, empty where there are none."""
        records = {"arrays": ordinary(), "config": ConfigRecord(CONFIG)} if kind == "train" else {}
        messages = [Message(RecordDict({**records}), node, kind) for node in grid.get_node_ids()]
        replies = list(grid.send_and_receive(messages))
        return [dict(reply.content.config_records.get("facts", {})) for reply in replies]

    told = ask("train")
    assert [facts["num-examples"] for facts in told] == [30, 30]
    assert ["shard" in facts for facts in told] == [True, False]
    assert ask("train") == [{}, {}]
    assert ask("query") == told
    assert ask("train") == [{}, {}]
    drop(shard, open_shard(shard).image_ids[:2].tolist())
    again = ask("train")
    assert [facts["num-examples"] for facts in again] == [28, 28]
    assert again[0]["shard"] != told[0]["shard"]
    assert ask("train") == [{}, {}]
    # As many as before, but others: a private client says nothing of that.
    tokens = np.load(shard / "tokens.npy")
    replace_array(shard, "tokens", tokens + tokens.dtype.type(1))
    assert [bool(facts) for facts in ask("train")] == [True, False]


def test_evaluation_on_the_clients_own_shard(blobs):
    metrics = ask(blobs, "evaluate", arrays=ordinary()).content.metric_records["metrics"]
    assert metrics["num-examples"] == 61
    assert 0 <= metrics["accuracy"] <= 1
    # Untrained and small: near the loss of a guess among three classes, log 3 = 1.0986.
    assert metrics["loss"] == pytest.approx(1.0986, abs=0.3)
