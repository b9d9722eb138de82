"""1,000 virtual clients, of which 32 train per round: seconds per round, IST against FedAvg.

Measured in Flower's simulation, with the memory of all its processes, and in process. Each client
has 40 of the demo tokens, drawn by seed, so shards overlap: there are only 4,000.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from runs import quiet_run

from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LocalFlower
from flower_ist.runs.log import read_run
from flower_ist.tokens.demo import test_shard, train_shard
from flower_ist.tokens.shard import TokenShard, client_folder, test_folder
from flower_ist.tokens.writer import ShardWriter

STRATEGIES = ("ist", "fedavg")
EXAMPLES = 40
SAMPLED = 32


def main() -> None:
    """Print one table: seconds a round, their ratio, and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder / "shards", arguments.clients)
        settings = {
            "num-rounds": arguments.rounds,
            "num-slices": 8,
            "fraction-train": SAMPLED / arguments.clients,
            "min-train-nodes": SAMPLED // 2,
            "min-available-nodes": arguments.clients,
            "local-steps": 40,
            "batch-size": 32,
            "standardize": False,
            "replay": False,
            "lda-skip": False,
            "wire-dtype": "float32",
            "node-timeout": 300.0,
            "data-dir": str(folder / "shards"),
        }
        print(f"| {arguments.clients} clients, {SAMPLED} a round | IST | FedAvg | ratio | memory |")
        print("|---|---|---|---|---|")
        seconds, peak = simulated(folder, settings, arguments.clients)
        show("Flower simulation, s a round", seconds, f"{peak / 2**30:.1f} GiB")
        show("in this process, s a round", in_process(folder, settings, arguments.clients), "")


def show(what: str, seconds: Sequence[float], memory: str) -> None:
    """Print one row."""
    ist, fedavg = seconds
    print(f"| {what} | {ist:.2f} | {fedavg:.2f} | {ist / fedavg:.2f} | {memory} |", flush=True)


def write_shards(folder: Path, num_clients: int) -> None:
    """Write a shard of 40 demo tokens for each client, and the server's."""
    pool, test = train_shard(0, 1), test_shard()
    generator = np.random.default_rng(0)
    for client in range(num_clients):
        rows = generator.choice(len(pool), EXAMPLES, replace=False)
        write_rows(pool, np.sort(rows), client_folder(folder, client))
    write_rows(test, np.arange(len(test)), test_folder(folder))


def write_rows(shard: TokenShard, rows: NDArray[np.intp], folder: Path) -> None:
    """Write some rows of a shard as a shard of its own."""
    share = len(rows) / len(shard)
    meta = replace(
        shard.meta,
        num_examples=len(rows),
        client=folder.name,
        sha256={},
        **{
            name: round(getattr(shard.meta, name) * share)
            for name in ("image_bytes", "image_file_bytes", "masked_image_bytes")
        },
    )
    arrays = {name: array[rows] for name, array in shard.arrays().items()}
    labels, image_ids = arrays.pop("labels"), arrays.pop("image_ids")
    with ShardWriter(folder, meta) as writer:
        writer.append_stored(arrays, labels, image_ids)


def simulated(
    folder: Path, settings: dict[str, Any], num_clients: int
) -> tuple[list[float], float]:
    """Return each strategy's seconds a round in Flower's simulation, and the peak memory."""
    peak = 0
    seconds = []
    for strategy in STRATEGIES:
        with LocalFlower() as flower:

            def watch(home: Path = flower.home) -> bool:
                nonlocal peak
                peak = max(peak, memory_of(home))
                return False

            run = folder / f"simulated-{strategy}"
            run_id = flower.submit(
                find_app(),
                {**settings, "strategy": strategy, "output-dir": str(run)},
                num_clients,
            )
            flower.wait(run_id, 3600, on_poll=watch)
        seconds.append(round_seconds(read_run(run)))
    return seconds, peak


def in_process(folder: Path, settings: dict[str, Any], num_clients: int) -> list[float]:
    """Return each strategy's seconds a round in this process."""
    options = {key.replace("-", "_"): value for key, value in settings.items()}
    return [
        round_seconds(
            quiet_run(
                folder / f"here-{strategy}", num_clients=num_clients, strategy=strategy, **options
            )
        )
        for strategy in STRATEGIES
    ]


def round_seconds(rounds: list[dict[str, Any]]) -> float:
    """Return the median round's seconds; the first, which also meets the clients, is left out."""
    return float(median(sum(line["seconds"].values()) for line in rounds[2:]))


def memory_of(home: Path) -> int:
    """Return the bytes of memory that all processes of a SuperLink's home hold, shared ones once.

    A process belongs to it if its environment says so; the kernel gives each its share of what
    several have mapped (PSS).
    """
    mark = f"FLWR_HOME={home}".encode()
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += sum(1024 * int(ln.split()[1]) for ln in lines if ln.startswith("Pss:"))
        except OSError:  # it has ended, or is somebody else's
            continue
    return total


if __name__ == "__main__":
    main()
