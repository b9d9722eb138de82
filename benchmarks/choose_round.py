"""Should validation choose the round? IST's runs with half of the server's shard for validation.

    python benchmarks/choose_round.py WORK TOKENS ... [--clients 16] [--seeds 6]

TOKENS as in benchmarks/equal_bytes.py. The other half gives the accuracies: of the last round, of
the round that is best on validation, round 0 among them, and of round 0 itself. Runs that are
already in WORK are not repeated.
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
    print("| tokens | last round | best on validation | difference | round 0 |")
    print("|---|---|---|---|---|")
    for folder in tokens:
        last, chosen, first = [], [], []
        for seed in range(seeds):
            run = one(work, folder, clients, "iid", seed, "validated")
            accuracy, validation = run["accuracy"], run["validation"]
            last.append(accuracy[-1])
            chosen.append(accuracy[validation.index(max(validation))])
            first.append(accuracy[0])
        cells = [mean(last), mean(chosen)]
        print(
            f"| {Path(folder).name} | {cells[0]:.2f} | {cells[1]:.2f} "
            f"| {cells[1] - cells[0]:+.2f} | {mean(first):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
