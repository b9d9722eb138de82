"""The study of docs/results.md: what the recipe gains, byte for byte, over other strategies.

TOKENS holds one folder from flower-ist prep for each data set and mask ratio, named cifar-r0.5,
resisc-r0.5 and so on; docs/results.md has the commands. The tokens are split among clients in
several ways, and the comparisons are run one after the other; each resumes where it stopped.

    python benchmarks/study.py TOKENS WORK                all of it: hours of two cores
    python benchmarks/study.py TOKENS WORK --only 'cifar-r0.5-k4-*'
    python benchmarks/study_tables.py WORK                       the tables of what is there
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from resplit import main as resplit
from rich.console import Console

from flower_ist.compare.command import compare, make_plan

SPLITS = {"iid": "iid", "d3": "dirichlet:0.3", "d1": "dirichlet:0.1"}
# Mask ratios by tokens: of 500 images a class of CIFAR-10, and of RESISC-12.
RATIOS = {
    "cifar500": ("0", "0.25", "0.5", "0.75", "0.9"),
    "resisc": ("0", "0.25", "0.5", "0.75", "0.9"),
}
# The app's defaults but for the wire dtypes, which are float32 unless said: `flower-ist compare`
# leaves out what comes before the first round.
HEAD_START = ("standardize=true", "replay=true", "lda-skip=true")
EPOCHS = "local-epochs=12"
RECIPE = (*HEAD_START, EPOCHS)
PLAIN = ("standardize=false", "replay=false", "lda-skip=false")
INT8 = ("wire-dtype=int8",)
INT4 = ("wire-dtype=int4",)
# Tuned on seed 0 (docs/results.md): rounds of 4 epochs of CIFAR-10, or long ones of smaller steps.
FEDAVG = {"cifar": ("local-epochs=4",), "resisc": ("local-epochs=12",)}
FEDAVG_LONG = (EPOCHS, "learning-rate=0.00025")
# Beside the clients' own, which is 0.0005.
CENTRAL_RATES = {"slow": "0.00025", "slower": "0.000125"}
# As many as 12 epochs are, give or take one.
PLAIN_IST = {"cifar": "local-steps=480", "resisc": "local-epochs=12"}

# One thing of the recipe changed at a time.
CHANGES = {
    "no-standardize": ("standardize=false",),
    "no-replay": ("replay=false",),
    "no-blend": ("lda-skip=false",),
}


@dataclass(frozen=True)
class Comparison:
    """One comparison of the study.

    Attributes:
        data: e.g. ``cifar-r0.5-k4-d3``: tokens, clients and split; behind it ``-v4`` for four views
            an image, one otherwise, ``-int8`` for tokens in int8, as they are otherwise, or
            ``-draw1`` for another draw of the split: all seeds share one.
        name: what is tried, e.g. ``recipe``.
        strategies: with commas.
        rounds: of each run.
        settings: of all runs.
    """

    data: str
    name: str
    strategies: str
    rounds: int
    settings: Sequence[str]

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.data}-{self.name}"


def study() -> Iterator[Comparison]:
    """Yield all comparisons."""
    for data_set in ("cifar", "resisc"):
        yield from _strategies(data_set)
        yield from _clients(data_set)
    yield from _ratios()
    for name, settings in CHANGES.items():
        changed = with_changes(RECIPE, *settings)
        yield Comparison("cifar-r0.5-k4-d3", f"change-{name}", "ist", 6, changed)


def _strategies(data_set: str) -> Iterator[Comparison]:
    """Four clients, three splits, all strategies."""
    for split in SPLITS:
        data = f"{data_set}-r0.5-k4-{split}"
        yield Comparison(data, "recipe", "ist", 8, RECIPE)
        yield Comparison(data, "int8", "ist", 5, [*RECIPE, *INT8])
        yield Comparison(data, "int4", "ist", 5, [*RECIPE, *INT4])
        yield Comparison(data, "fedavg", "fedavg", 12, [*PLAIN, *FEDAVG[data_set]])
        yield Comparison(data, "fedavg-long", "fedavg", 6, [*PLAIN, *FEDAVG_LONG])
        yield Comparison(data, "fedavg-long-int8", "fedavg", 6, [*PLAIN, *FEDAVG_LONG, *INT8])
        epochs = FEDAVG[data_set]
        yield Comparison(data, "fedavg-recipe", "fedavg", 6, [*HEAD_START, *epochs])
        yield Comparison(data, "fedavg-recipe-long", "fedavg", 6, [*HEAD_START, *FEDAVG_LONG])
        yield Comparison(data, "fedavg-recipe-int8", "fedavg", 6, [*HEAD_START, *epochs, *INT8])
        yield Comparison(data, "plain", "ist,ist-fixed", 8, [*PLAIN, PLAIN_IST[data_set]])
        yield Comparison(data, "ridge", "ridge,fedcof,fedncm", 1, [])
    data = f"{data_set}-r0.5-k4-iid"
    yield Comparison(data, "central", "central", 8, [*PLAIN, EPOCHS])
    yield Comparison(data, "central-standard", "central", 8, with_changes(RECIPE, "lda-skip=false"))
    yield Comparison(data, "central-recipe", "central", 8, RECIPE)
    heads: dict[str, Sequence[str]] = {"standard": ["lda-skip=false"], "recipe": []}
    for (name, head), (speed, rate) in product(heads.items(), CENTRAL_RATES.items()):
        settings = with_changes(RECIPE, f"learning-rate={rate}", *head)
        yield Comparison(data, f"central-{name}-{speed}", "central", 8, settings)
    if data_set == "cifar":
        yield Comparison("cifar-r0.5-k4-iid-v4", "recipe", "ist", 8, RECIPE)
        yield Comparison("cifar-r0.5-k4-d3-int8", "tokens", "ist", 6, RECIPE)
        other = "cifar-r0.5-k4-d3-draw1"
        yield Comparison(other, "recipe", "ist", 8, RECIPE)
        yield Comparison(other, "fedavg-long", "fedavg", 6, [*PLAIN, *FEDAVG_LONG])
        yield Comparison(other, "fedavg-recipe", "fedavg", 6, [*HEAD_START, *FEDAVG["cifar"]])


def _clients(data_set: str) -> Iterator[Comparison]:
    """2, 8 and 16 clients; two have twice the data each, so twice the steps in half the rounds."""
    for clients, split in product((2, 8, 16), SPLITS):
        data = f"{data_set}-r0.5-k{clients}-{split}"
        yield Comparison(data, "recipe", "ist", 4 if clients == 2 else 8, RECIPE)
        rounds = 4 if clients == 2 else 6
        yield Comparison(data, "fedavg-long", "fedavg", rounds, [*PLAIN, *FEDAVG_LONG])
        if data_set == "cifar" and split == "iid":
            recipe = [*HEAD_START, *FEDAVG_LONG]
            yield Comparison(data, "fedavg-recipe-long", "fedavg", rounds, recipe)


def _ratios() -> Iterator[Comparison]:
    """Against central MLPs of the same steps: standardized as IST's are, and the whole recipe."""
    for data_set, ratios in RATIOS.items():
        for data in (f"{data_set}-r{ratio}" for ratio in ratios):
            # At the rate that is best for it at r = 0.5 of CIFAR-10.
            tuned = with_changes(RECIPE, f"learning-rate={CENTRAL_RATES['slower']}")
            alone = with_changes(tuned, "lda-skip=false")
            yield Comparison(f"{data}-k4-iid", "central-6-slower", "central", 6, alone)
            yield Comparison(f"{data}-k4-iid", "central-recipe-6-slower", "central", 6, tuned)
            yield Comparison(f"{data}-k4-iid", "recipe-6", "ist", 6, RECIPE)
            yield Comparison(f"{data}-k2-iid", "recipe-3", "ist", 3, RECIPE)
            yield Comparison(f"{data}-k4-iid", "ridge-alone", "ridge", 1, [])


def with_changes(settings: Sequence[str], *changes: str) -> list[str]:
    """Return ``key=value`` settings, with changes in the place of what they change."""
    values = dict(text.split("=", 1) for text in (*settings, *changes))
    return [f"{key}={value}" for key, value in values.items()]


def main(
    tokens: Annotated[Path, typer.Argument(help="The folder of folders of prep.")],
    work: Annotated[Path, typer.Argument(help="Where splits and comparisons go.")],
    only: Annotated[str, typer.Option(help="Which: a pattern such as 'cifar-*-recipe'.")] = "*",
    seeds: Annotated[int, typer.Option(help="How many of each.")] = 3,
    jobs: Annotated[int, typer.Option(help="Runs at a time; 0: as many as cores.")] = 0,
    listed: Annotated[bool, typer.Option("--list", help="Only list the comparisons.")] = False,
) -> None:
    """Run the study, or the part of it that a pattern names."""
    for comparison in study():
        if not fnmatch(comparison.folder, only):
            continue
        print(comparison.folder)
        if not listed:
            plan = make_plan(
                data=_tokens(comparison.data, tokens, work),
                strategies=comparison.strategies,
                clients=_parts(comparison.data)[1],
                rounds=comparison.rounds,
                seeds=seeds,
                settings=["validation-share=0.5", *comparison.settings],
            )
            compare(plan, work / comparison.folder, Console(stderr=True), jobs or None)


def _tokens(data: str, tokens: Path, work: Path) -> Path:
    """Return the folder of a comparison's shards; made if it is not there."""
    source, clients, split, kept = _parts(data)
    folder = work / "tokens" / data
    if not folder.exists():
        resplit(
            tokens / source,
            folder,
            clients=clients,
            split=SPLITS[split],
            views=int(kept[1:]) if kept.startswith("v") else 1,
            dtype=kept if kept == "int8" else "",
            seed=int(kept.removeprefix("draw")) if kept.startswith("draw") else 0,
        )
    return folder


def _parts(data: str) -> tuple[str, int, str, str]:
    """Return tokens, clients, split and what is kept of ``cifar-r0.5-k4-d3-v4``."""
    data_set, ratio, clients, split, *kept = data.split("-")
    return f"{data_set}-{ratio}", int(clients[1:]), split, "".join(kept)


if __name__ == "__main__":
    typer.run(main)
