"""A class that joins a run in its middle: is it learnt, and what does the server's question bring?

    python benchmarks/growing_data.py SHARDS [--joins 4] [--rounds 8]

SHARDS is a folder that prep wrote. The class is taken from all clients; its examples of the client
with the most of them are in that client's shard from the start, join it in a round, or never do. In
one run more the server does not ask for new statistics. All in this process.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import typer
from flwr.app import Context, Message, RecordDict
from runs import ROOT
from threadpoolctl import threadpool_limits

from flower_ist.classifier.predictor import load_classifier
from flower_ist.grids.chain import round_of
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.app import load_app
from flower_ist.tokens.edit import Rows, drop, join, joined_meta
from flower_ist.tokens.shard import open_shard
from flower_ist.tokens.totals import of_some
from server_app.newcomers import Newcomers


class GrowingGrid(InProcessGrid):
    """A grid in which something happens when a round begins."""

    begun = 0
    happens: Mapping[int, Callable[[], object]] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, after what happens before them."""
        messages = list(messages)
        for message in messages:
            if (server_round := round_of(message)) > self.begun:
                self.begun = server_round
                self.happens.get(server_round, lambda: None)()
        return super().push_messages(messages)


def main(
    shards: Path,
    name: Annotated[str, typer.Option(help="The class; by default the last one.")] = "",
    joins: Annotated[int, typer.Option(help="The round in which it joins.")] = 4,
    rounds: int = 8,
) -> None:
    """Print one table: test accuracy, and the class's own recall."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    threadpool_limits(1)
    name = name or open_shard(shards / "test").meta.class_names[-1]
    print(f"| class {name!r} is there | accuracy % | of {name!r} % |\n|---|---|---|")
    for when in ("from the start", f"from round {joins}", "the same, unasked", "never"):
        with tempfile.TemporaryDirectory() as temporary:
            data = Path(temporary)
            rows, owner = without_class(shards, data, name)
            happens = {}
            if when == "from the start":
                grow(owner, rows)
            elif when != "never":
                happens = {joins: lambda owner=owner, rows=rows: grow(owner, rows)}
            unasked = patch.object(Newcomers, "_has_changed", lambda *_: False)
            with unasked if "unasked" in when else nullcontext():
                run = train(data, happens, rounds)
            test = open_shard(data / "test")
            label = test.meta.class_names.index(name)
            tokens, labels = test.batch()
            right = load_classifier(run).probabilities(tokens).argmax(axis=1) == labels
            of_it = 100 * right[labels == label].mean()
            print(f"| {when} | {100 * right.mean():.1f} | {of_it:.1f} |", flush=True)


def without_class(shards: Path, data: Path, name: str) -> tuple[Rows, Path]:
    """Copy shards without a class; return one client's examples of it, and that client's shard."""
    held: dict[Path, Rows] = {}
    for folder in [*sorted(shards.glob("client-*")), shards / "test"]:
        shutil.copytree(folder, data / folder.name, copy_function=shutil.copyfile)
        (data / folder.name).chmod(0o755)
        if folder.name == "test":
            continue
        shard = open_shard(folder)
        chosen = np.flatnonzero(shard.labels == shard.meta.class_names.index(name))
        arrays: dict[str, Any] = {k: np.array(a[chosen]) for k, a in shard.arrays().items()}
        labels, ids = arrays.pop("labels"), arrays.pop("image_ids")
        held[data / folder.name] = arrays, labels.astype(np.int64), ids.astype(np.int64)
        if len(chosen):
            drop(data / folder.name, ids.tolist())
    owner = max(held, key=lambda folder: len(held[folder][1]))
    return held[owner], owner


def grow(owner: Path, rows: Rows) -> None:
    """Put examples behind those of a client."""
    meta, count = open_shard(owner).meta, len(rows[1])
    join(owner, joined_meta(meta, of_some(meta, count)), [rows])


def train(data: Path, happens: Mapping[int, Callable[[], object]], rounds: int) -> Path:
    """Run both apps with pyproject's settings; return the run's folder."""
    app = load_app(ROOT)
    config = {
        **app.config,
        "data-dir": str(data),
        "output-dir": str(data / "run"),
        "num-rounds": rounds,
        "local-epochs": 4.0,
        "node-timeout": 0.0,
    }
    grid = GrowingGrid(app.client_app, len(list(data.glob("client-*"))), config)
    grid.happens = happens
    app.server_app(grid, Context(1, 1, {}, RecordDict(), config))
    return data / "run"


if __name__ == "__main__":
    typer.run(main)
