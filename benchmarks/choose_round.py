"""How validation chooses the round: IST's runs with half of the server's shard for validation.

    python benchmarks/choose_round.py WORK TOKENS ... [--clients 16] [--seeds 6]

TOKENS as in benchmarks/equal_bytes.py. The other half gives the accuracies: of the last round, of
the round that the app chooses (server_app/chosen_round.py), of the one that is best on validation,
and of round 0, all of them also for a learning rate that is far too high. Runs that are already in
WORK are not repeated.
"""

from __future__ import annotations

import logging
from pathlib import Path
from statistics import mean

import typer
from equal_bytes import one
from threadpoolctl import threadpool_limits


def main(work: Path, tokens: list[str], clients: int = 16, seeds: int = 6) -> None:
    """Run what is missing, and print one line for each set."""
    logging.disable(logging.WARNING)
    threadpool_limits(1)
    print("| learning rate | tokens | last round | the app's | best on validation | round 0 |")
    print("|---|---|---|---|---|---|")
    for rate, way in (("1e-3", "validated"), ("3e-2", "validated, 3e-2")):
        for folder in tokens:
            found = []
            for seed in range(seeds):
                run = one(work, folder, clients, "iid", seed, way)
                accuracy, validation = run["accuracy"], run["validation"]
                best = validation.index(max(validation))
                found.append([accuracy[n] for n in (-1, run["model round"], best, 0)])
            cells = " | ".join(f"{mean(column):.2f}" for column in zip(*found, strict=True))
            print(f"| {rate} | {Path(folder).name} | {cells} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
