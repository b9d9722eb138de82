"""The CIFAR-10 study of docs/results.md: what the recipe brings, byte for byte, against its rivals.

    flower-ist prep TRAIN.npz --test TEST.npz --encoder ENCODER --weights W --image-size 112 \
        --mask-ratio 0.5 --views 4 --out tokens
    python benchmarks/study.py tokens work

It shares the tokens out in several ways, runs one comparison after the other (each goes on where it
was stopped), and prints the tables. With --tables it only prints those of the runs that are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from resplit import main as resplit
from rich.console import Console

from flower_ist.compare.command import compare, make_plan

RECIPE = ("standardise=true", "replay=true", "ridge-blend=2")
PLAIN = ("standardise=false", "replay=false", "ridge-blend=0")
LONG = ("local-steps=480",)
SHORT = ("local-steps=160",)
INT8 = ("wire-dtype-down=int8", "wire-dtype-up=int8")
# name -> clients, split, views
DATA = {
    "iid": (4, "iid", 1),
    "d3": (4, "dirichlet:0.3", 1),
    "d1": (4, "dirichlet:0.1", 1),
    "iid-k8": (8, "iid", 1),
    "iid-k16": (16, "iid", 1),
    "iid-v4": (4, "iid", 4),
}


# What each part brings: one thing changed at a time.
ABLATION = {
    "abl-nostd-d3": ["standardise=false"],
    "abl-noreplay-d3": ["replay=false"],
    "abl-noblend-d3": ["ridge-blend=0"],
    "try-cosine-d3": ["final-learning-rate=0.00005"],
    "try-steps-d3": ["steps-schedule=960,320,160"],
    "try-grow-d3": ["slices-schedule=8,4"],
    "try-momentum-d3": ["submodel-optimiser=momentum", "server-momentum=0.5"],
    "try-average-d3": ["average-rounds=3"],
}


@dataclass(frozen=True)
class Comparison:
    """One comparison: its data, strategies, rounds, seeds and settings."""

    data: str
    strategies: str
    rounds: int
    seeds: int
    settings: Sequence[str]


STUDY = {
    **{f"recipe480-{d}": Comparison(d, "ist", 8, 3, [*RECIPE, *LONG]) for d in ("iid", "d3", "d1")},
    **{f"int8-{d}": Comparison(d, "ist", 4, 3, [*RECIPE, *LONG, *INT8]) for d in ("iid", "d3")},
    **{
        f"fedavg-{d}": Comparison(d, "fedavg", 18, 3, [*PLAIN, *SHORT]) for d in ("iid", "d3", "d1")
    },
    **{
        f"fedavg-recipe-{d}": Comparison(d, "fedavg", 8, 2, [*RECIPE, *SHORT])
        for d in ("iid", "d3", "d1")
    },
    **{
        f"ridge-{d}": Comparison(d, "ridge,fedcof,fedncm", 1, 3, ["ridge-penalties=10,100,1000"])
        for d in ("iid", "d3", "d1")
    },
    "plain480-d3": Comparison("d3", "ist,ist-fixed", 8, 3, [*PLAIN, *LONG]),
    **{
        name: Comparison("d3", "ist", 6, 2, [*RECIPE, *LONG, *settings])
        for name, settings in ABLATION.items()
    },
    "try-balanced-d3": Comparison("d3", "ist-balanced", 6, 2, [*RECIPE, *LONG]),
    "v4-iid": Comparison("iid-v4", "ist", 6, 2, [*RECIPE, *LONG]),
    "recipe480-k8": Comparison("iid-k8", "ist", 6, 2, [*RECIPE, *LONG]),
    "recipe480-k16": Comparison("iid-k16", "ist", 6, 2, [*RECIPE, *LONG]),
    "fedavg-k8": Comparison("iid-k8", "fedavg", 10, 1, [*PLAIN, *SHORT]),
    "fedavg-k16": Comparison("iid-k16", "fedavg", 10, 1, [*PLAIN, *SHORT]),
    "central-iid": Comparison("iid", "central", 8, 2, [*PLAIN, *LONG]),
    "central-std-iid": Comparison("iid", "central", 8, 2, [*RECIPE, *LONG, "ridge-blend=0"]),
}

CURVES = (
    ("recipe480", "ist", "IST, recipe"),
    ("int8", "ist", "IST, recipe, int8"),
    ("fedavg-recipe", "fedavg", "FedAvg, recipe"),
    ("fedavg", "fedavg", "FedAvg"),
    ("ridge", "ridge", "ridge (float64)"),
)
Rounds = Sequence[Mapping[str, Any]]


def main(
    tokens: Annotated[Path, typer.Argument(help="A folder of prep, with 4 views and 4 clients.")],
    work: Annotated[Path, typer.Argument(help="Where splits and comparisons go.")],
    only: Annotated[str, typer.Option(help="Comparisons, with commas; default: all.")] = "",
    tables: Annotated[bool, typer.Option(help="Only print the tables.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy against bytes here.")] = None,
) -> None:
    """Run the study and print its tables."""
    chosen = only.split(",") if only else list(STUDY)
    if not tables:
        for name in chosen:
            _run(STUDY[name], tokens, work, work / name)
    print("| comparison | strategy | seeds | best by validation | range | MB until then | last |")
    print("|---|---|---|---|---|---|---|")
    for name in chosen:
        for strategy, runs in _runs(work / name).items():
            print(f"| {name} | {strategy} | {len(runs)} | {_row(runs)} |")
    _print_ablation(work)
    _print_bytes_to_fedavg(work)
    if plot is not None:
        _draw(work, plot)


def _run(comparison: Comparison, tokens: Path, work: Path, out: Path) -> None:
    clients, split, views = DATA[comparison.data]
    data = work / f"tokens-{comparison.data}"
    if not data.exists():
        resplit(tokens, data, clients=clients, split=split, views=views)
    plan = make_plan(
        data=data,
        strategies=comparison.strategies,
        clients=clients,
        rounds=comparison.rounds,
        seeds=comparison.seeds,
        settings=["validation-share=0.5", *comparison.settings],
    )
    compare(plan, out, Console(stderr=True))


def _runs(folder: Path) -> dict[str, list[Rounds]]:
    """Return the logs of a comparison's runs, by strategy."""
    found: dict[str, list[Rounds]] = {}
    for log in sorted(folder.glob("runs/*/run.jsonl")):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        total = 0
        for line in lines:
            total += line["wire_bytes_down"] + line["wire_bytes_up"]
            line["so_far"] = total
        found.setdefault(log.parent.name.partition("-default")[0], []).append(lines)
    return found


def _best(lines: Rounds) -> Mapping[str, Any]:
    """Return the round with the best validation accuracy, the first of equals."""
    return max(lines, key=lambda line: line["validation_accuracy"])


def _row(runs: Sequence[Rounds]) -> str:
    best = [_best(lines) for lines in runs]
    accuracies = [100 * line["accuracy"] for line in best]
    last = median(100 * lines[-1]["accuracy"] for lines in runs)
    return (
        f"{median(accuracies):.2f} % | {min(accuracies):.2f} to {max(accuracies):.2f} | "
        f"{median(line['so_far'] for line in best) / 1e6:.1f} | {last:.2f} %"
    )


def _print_ablation(work: Path) -> None:
    """Print the recipe and its changes, all within the first 6 rounds of seeds 0 and 1."""
    print("\n| Dirichlet(0.3), seeds 0 and 1 | best by validation | range | MB until then | last |")
    print("|---|---|---|---|---|")
    for name in ("recipe480-d3", *ABLATION, "try-balanced-d3"):
        for strategy, runs in _runs(work / name).items():
            rows = [lines[:7] for lines in runs[:2]]
            print(f"| {name} ({strategy}) | {_row(rows)} |")


def _print_bytes_to_fedavg(work: Path) -> None:
    """Print the bytes with which the seeds' median reaches FedAvg's best accuracy - 0.5 points."""
    print("\n| split | FedAvg | target | FedAvg MB | IST MB | fewer | IST int8 MB | fewer |")
    print("|---|---|---|---|---|---|---|---|")
    for rival in ("fedavg", "fedavg-recipe"):
        for split in ("iid", "d3", "d1"):
            fedavg = _runs(work / f"{rival}-{split}").get("fedavg", [])
            if not fedavg:
                continue
            target = median(_best(lines)["accuracy"] for lines in fedavg) - 0.005
            needed = _bytes_to(fedavg, target)
            kind = "plain" if rival == "fedavg" else "with the recipe"
            cells = [f"{split} | {kind} | {100 * target:.2f} % | {_megabytes(needed)}"]
            for name in (f"recipe480-{split}", f"int8-{split}"):
                ours = _bytes_to(_runs(work / name).get("ist", []), target)
                fewer = f"{needed / ours:.0f} x" if needed and ours else "-"
                cells.append(f"{_megabytes(ours)} | {fewer}")
            print(f"| {' | '.join(cells)} |")


def _draw(work: Path, file: Path) -> None:
    """Draw the median test accuracy of each round against the bytes so far, on two splits."""
    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    for axes, (split, title) in zip(
        figure.subplots(1, 2, sharey=True), (("iid", "IID"), ("d3", "Dirichlet(0.3)")), strict=True
    ):
        for name, strategy, label in CURVES:
            runs = _runs(work / f"{name}-{split}").get(strategy, [])
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


def _bytes_to(runs: Sequence[Rounds], target: float) -> float | None:
    """Return the wire bytes after the first round whose median accuracy reaches the target."""
    for together in zip(*runs, strict=False):
        if median(line["accuracy"] for line in together) >= target:
            return float(median(line["so_far"] for line in together))
    return None


def _megabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f}"


if __name__ == "__main__":
    typer.run(main)
