"""What lies about examples and tokens do to a run, with and without ``claim-bound``.

The demo tokens among eight clients, in process, over three splits. One client of middling size
lies:

* count: statistics of a hundred million examples, with every class called by the next one's name;
* spread: statistics of tokens that are a hundred times as large;
* weight: all clients share a slice; one claims a hundred million examples, and sends its update
  with the opposite sign.

Below the attacks stands what the bound costs honest clients, mean of five seeds: the same splits
without a liar, and one client with twenty times the examples of the median. Takes about 10 minutes.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from data_prep.images.image_set import ImageSet
from data_prep.splits.clients import split_clients
from data_prep.splits.kinds import ClientSplit
from flower_ist.runs.app import load_app, run_in_process
from flower_ist.runs.log import read_run
from flower_ist.statistics.sums import Statistics
from flower_ist.tokens.demo import test_shard, train_shard
from flower_ist.tokens.shard import TokenShard, open_shard
from flower_ist.tokens.writer import ShardWriter

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tests.fakes.hostile import (  # noqa: E402
    Lie,
    backward,
    flipped,
    larger,
    lying,
    sums,
    tells,
    then,
    times,
)

CLIENTS = 8
SPLITS = {"IID": "iid", "Dirichlet 0.3": "dirichlet:0.3", "Dirichlet 0.1": "dirichlet:0.1"}
MANY = 10**8
SEEDS = range(5)
ONE_SLICE = {
    "num-slices": 1,
    "wire-dtype": "float32",
    "num-rounds": 5,
    "local-steps": 40,
    "hidden-width": 256,
}
STATISTICS = {"strategy": "lda", "num-rounds": 1}


def main() -> None:
    """Print both tables."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    threadpool_limits(1)
    print("| attack | split | no liar | without a bound | with it |")
    print("|---|---|---|---|---|")
    folders = {split: _split(name) for split, name in SPLITS.items()}
    for attack, settings in (
        ("count", STATISTICS),
        ("spread", STATISTICS),
        ("weight", ONE_SLICE),
    ):
        for split, folder in folders.items():
            liar, examples = _middling(folder)
            lie = _lies(examples)[attack]
            accuracies = (
                _run(folder, {}, settings),
                _run(folder, {liar: lie}, {**settings, "claim-bound": 0.0}),
                _run(folder, {liar: lie}, settings),
            )
            print(f"| {attack} | {split} | " + " | ".join(f"{a:.2f}" for a in accuracies) + " |")
    print("\n| honest clients | settings | without a bound | with it |")
    print("|---|---|---|---|")
    folders["20 x the median"] = _one_large()
    for split, folder in folders.items():
        for name, settings in (("statistics", STATISTICS), ("one slice", ONE_SLICE)):
            off, on = (
                np.mean([_run(folder, {}, {**settings, **bound, "seed": seed}) for seed in SEEDS])
                for bound in ({"claim-bound": 0.0}, {})
            )
            print(f"| {split} | {name} | {off:.2f} | {on:.2f} |", flush=True)


def _lies(examples: int) -> dict[str, Lie]:
    factor = MANY // examples
    many = tells(num_examples=factor * examples)
    meta = test_shard().meta
    changed = partial(sums, classes=meta.num_classes, dim=meta.dim)

    def of_dtype(change: Callable[[Statistics], Statistics]) -> Lie:
        return changed(change, dtype="float64")

    return {
        "count": then(many, of_dtype(lambda told: times(factor)(flipped(told)))),
        "spread": of_dtype(larger(100)),
        "weight": then(many, backward(factor * examples)),
    }


def _middling(folder: Path) -> tuple[int, int]:
    """Return number and examples of the client in the middle by size."""
    sizes = [len(open_shard(folder / f"client-{k}")) for k in range(CLIENTS)]
    liar = sorted(range(CLIENTS), key=sizes.__getitem__)[CLIENTS // 2]
    return liar, sizes[liar]


def _run(folder: Path, lies: dict[int, Lie], changes: dict[str, Any]) -> float:
    app = load_app(ROOT)
    with tempfile.TemporaryDirectory() as out:
        config = {
            **app.config,
            "data-dir": str(folder),
            "output-dir": f"{out}/run",
            "node-timeout": 0.0,
            **changes,
        }
        clients = len(list(folder.glob("client-*")))
        run_in_process(app.server_app, lying(app.client_app, lies), clients, config)  # type: ignore[arg-type]
        return 100 * float(read_run(Path(out) / "run")[-1]["accuracy"])


def _split(name: str) -> Path:
    shard = train_shard(0, 1)
    data = ImageSet(
        images=np.zeros((len(shard), 1, 1, 1), np.uint8),
        labels=shard.labels.astype(np.int64),
        image_ids=shard.image_ids,
        class_names=shard.meta.class_names,
        source="demo",
    )
    return _write(split_clients(data, ClientSplit.parse(name), CLIENTS, 0))


def _one_large() -> Path:
    rows = np.random.default_rng(0).permutation(len(train_shard(0, 1)))
    small = len(rows) // (CLIENTS - 1 + 20)
    cuts = [20 * small + k * small for k in range(CLIENTS)]
    return _write([np.sort(part) for part in np.split(rows, cuts)[:CLIENTS]])


def _write(parts: list[Any]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="claims-"))
    for k, rows in enumerate(parts):
        _write_shard(folder, f"client-{k}", train_shard(0, 1), rows)
    _write_shard(folder, "test", test_shard(), np.arange(len(test_shard())))
    return folder


def _write_shard(folder: Path, name: str, shard: TokenShard, rows: Any) -> None:
    tokens, labels = shard.batch(slice(0, len(shard)))
    meta = replace(
        shard.meta, num_examples=len(rows), client=name, token_dtype="float16", sha256={}
    )
    with ShardWriter(folder / name, meta) as writer:
        writer.append(tokens[rows], labels[rows], shard.image_ids[rows])


if __name__ == "__main__":
    main()
