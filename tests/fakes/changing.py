"""Clients whose data change while a run goes on: a grid for it, and what becomes of the sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.classifier.predictor import load_classifier
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.log import read_run
from flower_ist.tokens.edit import drop, join, joined_meta
from flower_ist.tokens.shard import open_shard
from flower_ist.wire.protocol import STATISTICS_QUERY
from server_app.app import app as server_app
from server_app.statistics_file import STATISTICS_FILE

Change = Callable[[], object]


class ChangingGrid(InProcessGrid):
    """A grid whose clients' data change before a round, and whose server may be stopped in one."""

    changes: Mapping[int, Change] = {}
    stop_in = 0
    begun = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            config = message.content.config_records.get("config", {})
            server_round = int(config.get("server-round", self.begun))
            if server_round == self.stop_in > 0:
                raise ConnectionError("the power is gone")
            if server_round > self.begun:
                self.begun = server_round
                self.changes.get(server_round, lambda: None)()
        return super().push_messages(messages)


def serve(config: dict[str, Any], clients: int = 3, stop_in: int = 0, **changes: Change) -> Path:
    """Run the app; ``round_3=f`` calls f when round 3 begins. Return the run's folder."""
    grid = ChangingGrid(client_app, clients, config)
    grid.changes = {int(name.removeprefix("round_")): change for name, change in changes.items()}
    grid.stop_in = stop_in
    server_app(grid, Context(1, 1, {}, RecordDict(), config))
    return Path(config["output-dir"])


def grow(shard: Path, by: Path) -> None:
    """Put the examples of one shard behind those of another."""
    new = open_shard(by)
    rows = {name: np.asarray(array) for name, array in new.arrays().items()}
    labels, ids = rows.pop("labels").astype(np.int64), rows.pop("image_ids") + 10_000
    join(shard, joined_meta(open_shard(shard).meta, new.meta), [(rows, labels, ids)])


def without_first(shard: Path, count: int) -> None:
    drop(shard, open_shard(shard).image_ids[:count].tolist())


def asked(run: Path) -> dict[int, int]:
    """Return how many clients were asked for statistics with a query, by round."""
    found = {}
    for line in read_run(run):
        query = line["message_types"].get(STATISTICS_QUERY, {})
        if query.get("messages_down"):
            found[line["round"]] = query["messages_down"]
    return found


def sums(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / STATISTICS_FILE)


def star_accuracy(run: Path, folder: Path) -> float:
    shard = open_shard(folder / "test")
    tokens, labels = shard.batch()
    found = load_classifier(run).probabilities(tokens).argmax(axis=1)
    return float((found[labels == 2] == 2).mean())


def assert_sums_are_of(run: Path, folder: Path, names: Iterable[str]) -> None:
    """As the shards are now: counts exactly, sums and squares but for what compact rounds."""
    shards = [open_shard(folder / name) for name in names]
    tokens, labels = (
        np.concatenate(parts)
        for parts in zip(*(shard.batch(slice(None)) for shard in shards), strict=True)
    )
    found = sums(run)
    one_hot = np.eye(3)[labels]
    assert found["counts"].tolist() == one_hot.sum(0).tolist()
    np.testing.assert_allclose(found["sums"], one_hot.T @ tokens, atol=1.0)
    gram = (tokens.T.astype(float) @ tokens)[np.triu_indices(tokens.shape[1])]
    np.testing.assert_allclose(found["gram"], gram, atol=0.03 * np.abs(gram).max())
