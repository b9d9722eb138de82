"""Who is ahead at which budget: from the runs that benchmarks/equal_bytes.py left in WORK.

    python benchmarks/equal_bytes_front.py WORK [--clients 16] [--split iid] [--plot FILE]
    python benchmarks/equal_bytes_front.py WORK --gaps [--clients 4,16] [--split "iid;..."]

A budget is bytes of all clients, both ways, statistics included. A strategy's accuracy within a
budget is that of its last round within it, as the mean over the seeds. With --gaps only the leader
of each budget is named, and how many points IST is behind it, for budgets from twice what the
statistics take to what FedAvg takes; IST with a slice for each client where the split is IID, else
with 4 slices.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from curves import Curve, draw, mean_curve
from equal_bytes import WAYS

BUDGETS = (0.5, 1, 2, 4, 8, 16, 32, 64, 128)
LABELS = {
    "ist": "IST",
    "ist of 4": "IST, 4 slices",
    "narrow": "narrow FedAvg",
    "narrow, 2e-3": "narrow FedAvg, 2e-3",
    "whole": "FedAvg",
    "features": "fedavg-features",
    "ridge": "ridge",
    "lda": "LDA",
}


def curves(work: Path, tokens: str, clients: int, split: str) -> dict[str, Curve]:
    """Return (MB so far, accuracy in percent) of each round, by strategy; means over the seeds."""
    found: dict[str, Curve] = {}
    for way in LABELS:
        # Closed forms have one round, before which there is nothing.
        first = 1 if WAYS[way].get("num-rounds") == 1 else 0
        runs: list[dict[str, Any]] = [
            json.loads(file.read_text())
            for file in sorted((work / "runs").glob(f"{tokens} {clients} {split} * {way}.json"))
        ]
        if runs:
            found[way] = mean_curve(runs)[first:]
    return found


def within(curve: Curve, budget: float) -> float | None:
    """Return the accuracy of the last round within a budget in MB; None if there is none."""
    reached = [accuracy for megabytes, accuracy in curve if megabytes <= budget]
    return reached[-1] if reached else None


def gap_cells(found: dict[str, Curve], split: str) -> list[str]:
    """Return for each budget who leads, and how many points IST is behind."""
    of_4 = found.pop("ist of 4", found["ist"])
    if split != "iid":
        found["ist"] = of_4
    least, most = 2 * found["ist"][0][0], found["whole"][-1][0]
    cells = []
    for budget in BUDGETS:
        scores = {way: within(curve, budget) or 0.0 for way, curve in found.items()}
        leader = max(scores, key=lambda way: scores[way])
        behind = scores[leader] - scores["ist"]
        inside = least <= budget <= most
        cells.append(
            "" if not inside else f"{LABELS[leader]} {behind:.2f}" if behind else "**IST**"
        )
    return cells


def print_gaps(work: Path, sets: list[str], clients: list[int], splits: list[str]) -> None:
    """Print a line for each split, number of clients and set."""
    print("| split, clients | tokens | " + " | ".join(f"{b:g} MB" for b in BUDGETS) + " |")
    print("|---" * (len(BUDGETS) + 2) + "|")
    for split in splits:
        for count in clients:
            for name in sets:
                found = curves(work, name, count, split)
                if {"ist", "whole"} <= found.keys():
                    cells = " | ".join(gap_cells(found, split))
                    print(f"| {split}, {count} | {name} | {cells} |")


def main(
    work: Path,
    clients: Annotated[str, typer.Option(help="Number of clients; several with --gaps.")] = "16",
    split: Annotated[
        str, typer.Option(help="As prep takes it; several with ; and --gaps.")
    ] = "iid",
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this file.")] = None,
    gaps: Annotated[bool, typer.Option(help="Leaders, and how far IST is behind.")] = False,
) -> None:
    """Print each strategy's accuracy at each budget that changes one; the best in bold."""
    sets = sorted({file.name.split(" ")[0] for file in (work / "runs").glob("*.json")})
    if gaps:
        print_gaps(work, sets, [int(count) for count in clients.split(",")], split.split(";"))
        return
    of_sets = {name: curves(work, name, int(clients), split) for name in sets}
    print(f"| tokens, {clients} clients, {split} | MB | " + " | ".join(LABELS.values()) + " |")
    print("|---" * (len(LABELS) + 2) + "|")
    for name, found in of_sets.items():
        before: dict[str, float | None] = {}
        for budget in BUDGETS:
            scores = {w: within(found[w], budget) if w in found else None for w in LABELS}
            known = [score for score in scores.values() if score is not None]
            if known and scores != before:
                before = scores
                cells = [
                    "-" if s is None else f"**{s:.2f}**" if s == max(known) else f"{s:.2f}"
                    for s in scores.values()
                ]
                print(f"| {name} | {budget:g} | " + " | ".join(cells) + " |")
    if plot is not None:
        labeled = {n: {LABELS[w]: c for w, c in found.items()} for n, found in of_sets.items()}
        draw(labeled, 2, plot)


if __name__ == "__main__":
    typer.run(main)
