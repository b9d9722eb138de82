"""Ideas that were tried beside the recipe, each with its effect measured alone: a table.

TOKENS is a folder of flower-ist prep with client-0 ... and test; without it, the demo tokens with
four clients. Each idea of tried_ideas/ideas.py is the recipe (IST with a slice for each client,
standardise, replay, ridge-blend 2) with one thing changed, run in this process without Flower's
messages. As with the app's validation-share 0.5, one half of the test shard chooses the round and
the other gives the accuracy.

    python benchmarks/tried.py TOKENS --log tried.jsonl
    python benchmarks/tried.py TOKENS --log tried.jsonl --only core,skip

The recipe here is the app's, to the bit:

    flower-ist compare --app . --data TOKENS --strategies ist --rounds 8 --set local-steps=469 \
        --set validation-share=0.5 --set standardise=true --set replay=true --set ridge-blend=2

With --log each finished run is kept, and a study that was stopped goes on where it was. Eight
rounds of 469 steps with D = 384 take the recipe about 50 seconds of a core.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.status import Status
from tried_ideas.federation import Federation
from tried_ideas.ideas import IDEAS, RECIPE
from tried_ideas.priors import bytes_before_training
from tried_ideas.simulation import simulate

from flower_ist.compare.shards import fingerprint
from flower_ist.json_lines import LineFollower
from flower_ist.tokens import ShardError

_HEADER = (
    "| idea | best by validation | range | last round | difference to the recipe "
    "| payload MB a round | payload MB before round 1 |\n|---|---|---|---|---|---|---|"
)
# A run as the log holds it: what was run, and each round's figures.
Run = Mapping[str, Any]


def main(
    tokens: Annotated[Path | None, typer.Argument(help="Folder of flower-ist prep.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ...")] = 3,
    local_steps: Annotated[int, typer.Option(min=1)] = 469,
    only: Annotated[str, typer.Option(help="Ideas, with commas; the recipe is always run.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Of PyTorch.")] = 1,
    log: Annotated[Path | None, typer.Option(help="Where finished runs are kept.")] = None,
) -> None:
    """Run the ideas and print a markdown table."""
    chosen = [RECIPE, *only.split(",")] if only else list(IDEAS)
    for name in chosen:
        if name not in IDEAS:
            raise typer.BadParameter(f"There is no idea {name!r}: choose of {', '.join(IDEAS)}.")
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    done = Log(log)
    runs: dict[str, list[Run]] = {name: [] for name in chosen}
    for seed in range(seeds):
        try:
            federation = Federation.open(tokens, seed)
            data = fingerprint("" if tokens is None else str(tokens), len(federation.clients))
        except ShardError as err:
            raise typer.BadParameter(str(err)) from None
        for name, found in runs.items():
            # The options too: an idea that was changed since is run again.
            key = {
                "idea": name,
                "options": asdict(IDEAS[name]),
                "tokens": data,
                "seed": seed,
                "rounds": rounds,
                "local_steps": local_steps,
            }
            run = done.find(key)
            if run is None:
                with console.status(f"{name}, seed {seed}") as status:
                    run = {**key, **figures(name, federation, rounds, local_steps, status)}
                done.add(run)
            found.append(run)
            console.print(f"{name}, seed {seed}: {percent(selected(run)['test'])}", highlight=False)
    print(_HEADER)
    for name, found in runs.items():
        print(row(name, found, runs[RECIPE]))


def figures(
    name: str, federation: Federation, rounds: int, local_steps: int, status: Status
) -> dict[str, Any]:
    """Run an idea with a seed and return what the log keeps of it; accuracies are 0 to 1."""
    idea = IDEAS[name]
    curve = []
    for done in simulate(idea, federation, rounds, local_steps):
        curve.append({**asdict(done.score), "payload_bytes": done.payload_bytes})
        status.update(f"{name}, seed {federation.seed}, round {len(curve)} of {rounds}")
    return {"bytes_before": bytes_before_training(idea, federation), "curve": curve}


def selected(run: Run) -> Mapping[str, float]:
    """Return the round with the best validation accuracy, the first of equals."""
    curve: Sequence[Mapping[str, float]] = run["curve"]
    return max(curve, key=lambda line: line["validation"])


def row(name: str, runs: Sequence[Run], recipes: Sequence[Run]) -> str:
    """Return an idea's line of the table.

    Args:
        name: of the idea.
        runs: one a seed.
        recipes: the recipe's, of the same seeds.
    """
    best = [selected(run)["test"] for run in runs]
    against = median(b - selected(r)["test"] for b, r in zip(best, recipes, strict=True))
    difference = "-" if name == RECIPE else f"{100 * against:+.2f}"
    last = median(run["curve"][-1]["test"] for run in runs)
    sent = median(sum(line["payload_bytes"] for line in run["curve"]) for run in runs)
    return (
        f"| {name} | {percent(median(best))} | {100 * min(best):.2f} to {100 * max(best):.2f} "
        f"| {percent(last)} | {difference} | {sent / len(runs[0]['curve']) / 1e6:.2f} "
        f"| {runs[0]['bytes_before'] / 1e6:.2f} |"
    )


def percent(share: float) -> str:
    """Return 0.7 as ``70.00 %``."""
    return f"{100 * share:.2f} %"


class Log:
    """Finished runs, one JSON line each; two studies may write to one file at a time.

    Args:
        file: it may not exist yet; None keeps nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lines: list[dict[str, Any]] = []
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not (b"\n" + file.read_bytes()).endswith(b"\n"):
            self._append("")  # ends a line that was cut off
        follower = LineFollower(file)
        follower.poll()
        self._lines = follower.lines

    def find(self, key: Mapping[str, Any]) -> Run | None:
        """Return the run that was made like this, if there is one."""
        written = json.loads(json.dumps(key))
        return next((line for line in self._lines if written.items() <= line.items()), None)

    def add(self, run: Run) -> None:
        """Keep a run."""
        self._append(json.dumps(run))

    def _append(self, text: str) -> None:
        if self._file is not None:
            with self._file.open("a") as opened:
                opened.write(text + "\n")


if __name__ == "__main__":
    typer.run(main)
