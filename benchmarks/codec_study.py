"""Accuracy against total bytes with each codec: IST, FedAvg on a narrow net and on the whole one.

    python benchmarks/codec_study.py WORK TOKENS ... [--clients 4,16] [--split iid] [--seeds 3]
        [--ways "ist in compact;ist in int4"] [--plot FILE]

Runs are those of benchmarks/equal_bytes.py, with the codecs that the ways name; runs that are
already in WORK are not repeated. Bytes are of all clients, both ways, statistics and token prior
included. Accuracies are means over the seeds of the last round and of rounds 4 to 8, which is less
noisy. ``to target`` is the bytes until the mean over the seeds first reaches the best round of
``whole in float32`` less half a point; test images choose that round for all ways alike.
"""

from __future__ import annotations

import logging
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer
from curves import Curve, draw, mean_curve
from equal_bytes import one
from threadpoolctl import threadpool_limits

TARGET = "whole in float32"
WAYS = "ist in compact;ist in int4;narrow in compact;whole in compact;" + TARGET


def curve_of(work: Path, tokens: str, clients: int, split: str, seeds: int, way: str) -> Curve:
    """Return a way's curve, the mean over the seeds."""
    return mean_curve([one(work, tokens, clients, split, seed, way) for seed in range(seeds)])


def row_of(way: str, curve: Curve, target: float | None) -> str:
    """Return a way's cells."""
    accuracies = [accuracy for _, accuracy in curve]
    reached = next((mb for mb, a in curve[1:] if target is not None and a >= target), None)
    a_round = (curve[-1][0] - curve[1][0]) / (len(curve) - 2)
    cells = [
        way,
        f"{accuracies[-1]:.2f}",
        f"{mean(accuracies[4:]):.2f}",
        f"{curve[0][0]:.2f}",
        f"{curve[1][0] - curve[0][0]:.2f}",
        f"{a_round:.3f}",
        f"{curve[-1][0]:.2f}",
        "-" if reached is None else f"{reached:.2f}",
    ]
    return " | ".join(cells) + " |"


def main(
    work: Path,
    tokens: list[str],
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "4",
    split: Annotated[str, typer.Option(help="As prep takes it.")] = "iid",
    seeds: int = 3,
    ways: Annotated[str, typer.Option(help="Which, with ; between them.")] = WAYS,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this file.")] = None,
) -> None:
    """Run what is missing, and print a row for each set of tokens, number of clients and way."""
    logging.disable(logging.WARNING)
    threadpool_limits(1)
    print(
        f"| tokens, clients, {split} | way | last round | rounds 4 to 8 | MB before round 1 "
        "| MB round 1 | MB a later round | MB in all | MB to target |"
    )
    print("|---" * 9 + "|")
    panels = {}
    for count in map(int, clients.split(",")):
        for folder in tokens:
            name = f"{Path(folder).name}, {count}"
            chosen = ways.split(";")
            curves = {w: curve_of(work, folder, count, split, seeds, w) for w in chosen}
            best = max(a for _, a in curves[TARGET]) if TARGET in curves else None
            target = None if best is None else best - 0.5
            for way, curve in curves.items():
                print(f"| {name} | " + row_of(way, curve, target), flush=True)
            panels[name] = curves
    if plot is not None:
        # Round 0 has no net.
        drawn = {n: {w: c[1:] for w, c in found.items()} for n, found in panels.items()}
        draw(drawn, len(drawn), plot)


if __name__ == "__main__":
    typer.run(main)
