"""The tables and the figure of the study, from the run logs that benchmarks/study.py left.

    python benchmarks/study_tables.py WORK [--plot FILE]

Accuracies are measured on the test half, in the round with the best accuracy on the validation
half. A cell gives the median over the seeds, the range, and the number of seeds if it is not three.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from study import CHANGES, RATIOS, SPLITS

Rounds = Sequence[Mapping[str, Any]]
_SEEDS = 3

ROWS = (
    ("IST, recipe", "recipe", "ist"),
    ("IST, recipe, int8", "int8", "ist"),
    ("IST, recipe, int4", "int4", "ist"),
    ("IST, plain", "plain", "ist"),
    ("IST, plain, fixed partition", "plain", "ist-fixed"),
    ("the same, averaged logits", "plain", "ist-fixed:ensemble_"),
    ("FedAvg, recipe", "fedavg-recipe", "fedavg"),
    ("FedAvg, recipe, long rounds", "fedavg-recipe-long", "fedavg"),
    ("FedAvg, recipe, int8", "fedavg-recipe-int8", "fedavg"),
    ("FedAvg, plain", "fedavg", "fedavg"),
    ("FedAvg, plain, long rounds", "fedavg-long", "fedavg"),
    ("FedAvg, plain, long rounds, int8", "fedavg-long-int8", "fedavg"),
    ("ridge (float64)", "ridge", "ridge"),
    ("FedCOF", "ridge", "fedcof"),
    ("FedNCM", "ridge", "fedncm"),
)
RIVALS = {
    "fedavg": "plain",
    "fedavg-long": "plain, long rounds",
    "fedavg-long-int8": "plain, long rounds, int8",
    "fedavg-recipe": "recipe",
    "fedavg-recipe-long": "recipe, long rounds",
    "fedavg-recipe-int8": "recipe, int8",
}
CENTRAL = (
    ("plain", "central"),
    ("standardized", "central-standard"),
    ("standardized, half the rate", "central-standard-slow"),
    ("standardized, a quarter", "central-standard-slower"),
    ("recipe", "central-recipe"),
    ("recipe, half the rate", "central-recipe-slow"),
    ("recipe, a quarter", "central-recipe-slower"),
)
# IST's columns of the table of bytes.
OURS = {"plain": "plain", "recipe": "recipe", "int8": "recipe, int8", "int4": "recipe, int4"}
CHANGE_LABELS = {
    "no-standardize": "without standardizing",
    "no-replay": "without replay",
    "no-blend": "without the ridge head",
}
SPLIT_LABELS = {"iid": "IID", "d3": "Dirichlet(0.3)", "d1": "Dirichlet(0.1)"}
DATA_LABELS = {
    "cifar": "CIFAR-10",
    "cifar500": "CIFAR-10, 500 a class",
    "resisc": "RESISC-12",
}
CURVES = (
    ("IST, recipe", "recipe", "ist"),
    ("IST, recipe, int8", "int8", "ist"),
    ("IST, plain", "plain", "ist"),
    ("FedAvg, recipe", "fedavg-recipe", "fedavg"),
    ("FedAvg, plain", "fedavg", "fedavg"),
    ("FedAvg, plain, long rounds", "fedavg-long", "fedavg"),
    ("ridge (float64)", "ridge", "ridge"),
)


def main(
    work: Annotated[Path, typer.Argument(help="The folder of benchmarks/study.py.")],
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy against bytes here.")] = None,
) -> None:
    """Print the tables of the comparisons that are there."""
    for tokens in ("cifar-r0.5", "resisc-r0.5"):
        _print_strategies(work, tokens)
        _print_bytes(work, tokens)
        _print_clients(work, tokens)
    _print_ratios(work)
    _print_changes(work)
    if plot is not None:
        _draw(work, plot)


def runs_of(folder: Path, strategy: str) -> list[Rounds]:
    """Return the rounds of a strategy's finished runs, seed by seed, with the bytes so far.

    Behind a colon the strategy may have a prefix of the accuracies that are meant, as in
    ``ist-fixed:ensemble_``: only rounds that have them are returned then.
    """
    strategy, _, prefix = strategy.partition(":")
    found: list[Rounds] = []
    for done in sorted(folder.glob(f"runs/{strategy}-default-seed*/done.json")):
        text = (done.parent / "run.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        total = 0
        for line in lines:
            total += line["wire_bytes_down"] + line["wire_bytes_up"]
            line["so_far"] = total
            for kind in ("accuracy", "validation_accuracy"):
                line[kind] = line.get(f"{prefix}{kind}")
        found.append([line for line in lines if line["accuracy"] is not None])
    return found


def best(lines: Rounds) -> Mapping[str, Any]:
    """Return the round with the best validation accuracy, the first of equals."""
    return max(lines, key=lambda line: line["validation_accuracy"])


def cell(runs: Sequence[Rounds], *, with_bytes: bool = False) -> str:
    """Return median and range of the best rounds' accuracies in percent; ``-`` without runs."""
    if not runs:
        return "-"
    rounds = [best(lines) for lines in runs]
    accuracies = [100 * line["accuracy"] for line in rounds]
    text = f"{median(accuracies):.2f}"
    if len(set(accuracies)) > 1:
        text += f" ({min(accuracies):.2f} to {max(accuracies):.2f})"
    if len(runs) != _SEEDS:
        text += f", {len(runs)} seed" + "s" * (len(runs) > 1)
    if with_bytes:
        text += f", {_megabytes(median(line['so_far'] for line in rounds))} MB"
    return text


def bytes_to(runs: Sequence[Rounds], target: float) -> float | None:
    """Return the wire bytes after the first round whose median accuracy reaches the target."""
    for together in zip(*runs, strict=False):
        if median(line["accuracy"] for line in together) >= target:
            return float(median(line["so_far"] for line in together))
    return None


def _print_strategies(work: Path, tokens: str) -> None:
    print(f"\n| {_label(tokens)}, K = 4, % | {' | '.join(SPLIT_LABELS.values())} |")
    print("|---|---|---|---|")
    for label, name, strategy in ROWS:
        cells = [
            cell(runs_of(work / f"{tokens}-k4-{split}-{name}", strategy), with_bytes=True)
            for split in SPLITS
        ]
        _print_row(label, *cells)
    many = runs_of(work / f"{tokens}-k4-iid-v4-recipe", "ist")
    _print_row("IST, recipe, 4 masks an image", cell(many, with_bytes=True), "-", "-")
    for label, name, strategy in ROWS:
        runs = runs_of(work / f"{tokens}-k4-d3-draw1-{name}", strategy)
        _print_row(f"{label}, another draw of the split", "-", cell(runs, with_bytes=True), "-")
    for label, name in CENTRAL:
        text = cell(runs_of(work / f"{tokens}-k4-iid-{name}", "central"))
        _print_row(
            f"central MLP, equal steps, {label}", text, *["the same" if text != "-" else "-"] * 2
        )


def _print_bytes(work: Path, tokens: str) -> None:
    """Print the bytes with which the seeds' median reaches FedAvg's best accuracy - 0.5 points."""
    label = _label(tokens)
    print(f"\n| {label} | FedAvg | target % | MB | IST, {' | IST, '.join(OURS.values())} |")
    print("|---" * (4 + len(OURS)) + "|")
    for rival, kind in RIVALS.items():
        for split in SPLITS:
            data = f"{tokens}-k4-{split}"
            fedavg = runs_of(work / f"{data}-{rival}", "fedavg")
            if not fedavg:
                continue
            target = median(best(lines)["accuracy"] for lines in fedavg) - 0.005
            needed = bytes_to(fedavg, target)
            cells = [kind, f"{100 * target:.2f}", _megabytes(needed)]
            for name in OURS:
                ours = bytes_to(runs_of(work / f"{data}-{name}", "ist"), target)
                fewer = f", {needed / ours:.1f} x" if needed and ours else ""
                cells.append(f"{_megabytes(ours)}{fewer}")
            _print_row(SPLIT_LABELS[split], *cells)


def _print_clients(work: Path, tokens: str) -> None:
    label = _label(tokens)
    print(
        f"\n| {label}: K | split | MB a round, IST / FedAvg | ridge, round 0 | IST, recipe "
        "| FedAvg, plain, long | FedAvg, recipe, long |\n|---|---|---|---|---|---|---|"
    )
    for split, clients in product(SPLITS, (2, 4, 8, 16)):
        data = f"{tokens}-k{clients}-{split}"
        ist = runs_of(work / f"{data}-recipe", "ist")
        fedavg = runs_of(work / f"{data}-fedavg-long", "fedavg")
        if ist and fedavg:
            ours, theirs = _bytes_of_a_round(ist), _bytes_of_a_round(fedavg)
            share = f"{ours / 1e6:.2f} / {theirs / 1e6:.1f} (1/{theirs / ours:.1f})"
            same = runs_of(work / f"{data}-fedavg-recipe-long", "fedavg")
            cells = [cell([lines[:1] for lines in ist]), cell(ist), cell(fedavg), cell(same)]
            _print_row(str(clients), SPLIT_LABELS[split], share, *cells)


def _bytes_of_a_round(runs: Sequence[Rounds]) -> float:
    """Return a run's wire bytes in its second round: the first one brings the prior too."""
    return float(runs[0][2]["wire_bytes_down"] + runs[0][2]["wire_bytes_up"])


def _print_ratios(work: Path) -> None:
    """Print IST against the central MLP: all with the steps of 6 rounds of one client of four."""
    for data_set, ratios in RATIOS.items():
        print(
            f"\n| {DATA_LABELS[data_set]}: r | ridge | central MLP | central, recipe "
            "| IST, K = 4 | gaps | IST, K = 2 | gaps |\n|---|---|---|---|---|---|---|---|"
        )
        for ratio in ratios:
            data = f"{data_set}-r{ratio}"
            central = [
                runs_of(work / f"{data}-k4-iid-{name}", "central")
                for name in ("central-6-slower", "central-recipe-6-slower")
            ]
            cells = [cell(runs_of(work / f"{data}-k4-iid-ridge-alone", "ridge"))]
            cells += [cell(runs) for runs in central]
            for name in ("k4-iid-recipe-6", "k2-iid-recipe-3"):
                ist = runs_of(work / f"{data}-{name}", "ist")
                cells += [cell(ist), " / ".join(_difference(runs, ist) for runs in central)]
            _print_row(ratio, *cells)


def _print_changes(work: Path) -> None:
    print("\n| recipe, with one thing changed | best by validation | difference | MB until then |")
    print("|---|---|---|---|")
    recipe = [lines[:7] for lines in runs_of(work / "cifar-r0.5-k4-d3-recipe", "ist")]
    changed: dict[str, Sequence[Rounds]] = {"nothing": recipe}
    for name in CHANGES:
        folder = work / f"cifar-r0.5-k4-d3-change-{name}"
        changed[CHANGE_LABELS[name]] = runs_of(folder, "ist")
    changed["tokens stored in int8"] = runs_of(work / "cifar-r0.5-k4-d3-int8-tokens", "ist")
    for label, runs in changed.items():
        megabytes = _megabytes(median(best(r)["so_far"] for r in runs)) if runs else "-"
        _print_row(label, cell(runs), _difference(runs, recipe), megabytes)


def _print_row(label: str, *cells: str) -> None:
    """Print a table's row; none if nothing was run for it."""
    if any(text.strip("- /") for text in cells):
        print(f"| {label} | {' | '.join(cells)} |")


def _label(tokens: str) -> str:
    """Return what the tables call the data of ``cifar-r0.5``."""
    return DATA_LABELS[tokens.split("-")[0]]


def _difference(runs: Sequence[Rounds], others: Sequence[Rounds]) -> str:
    """Return by how many points runs are better than others of the same seeds, in the median."""
    pairs = list(zip(runs, others, strict=False))
    points = [100 * (best(ours)["accuracy"] - best(theirs)["accuracy"]) for ours, theirs in pairs]
    return f"{median(points):+.2f}" if points else "-"


def _draw(work: Path, file: Path) -> None:
    """Draw the median test accuracy of each round against the bytes so far, on two splits."""
    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    for axes, (split, title) in zip(
        figure.subplots(1, 2, sharey=True), (("iid", "IID"), ("d3", "Dirichlet(0.3)")), strict=True
    ):
        for label, name, strategy in CURVES:
            runs = runs_of(work / f"cifar-r0.5-k4-{split}-{name}", strategy)
            rounds = [lines[1:] if strategy == "ridge" else lines for lines in runs]
            points = [
                (
                    median(line["so_far"] for line in together) / 1e6,
                    100 * median(line["accuracy"] for line in together),
                )
                for together in zip(*rounds, strict=False)
            ]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.set(
            title=title,
            xscale="log",
            xlabel="MB on the wire, both directions",
            xlim=(1, 1000),
            ylim=(55, 74),
        )
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test accuracy (%)")
    figure.axes[0].legend(fontsize="small")
    figure.savefig(file, dpi=130)


def _megabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f}"


if __name__ == "__main__":
    typer.run(main)
