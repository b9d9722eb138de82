"""IST against strategies that cost the same bytes: the table of docs/results.md.

    python benchmarks/equal_bytes.py WORK TOKENS ... [--clients 4,16] [--split iid] [--seeds 3]

TOKENS are folders that ``flower-ist prep`` wrote; ``demo`` stands for the embedded tokens. Every
run uses the app's defaults, the same recipe and rounds on all sides, and int8 both ways, in which
equal shapes are equal bytes; or the codec that a way names (``--ways "ist in compact;narrow in
compact"``). With K clients, IST has H neurons, each slice H / K of them, and the narrow net as many
as a slice, so their messages are the same size. With 4 slices, each of them trained by K / 4
clients, IST has 4 H / K neurons, so that its slices are as large. The narrow net is also trained at
its own best learning rate. The last round counts. With ``--held`` no test example is read:
each seed is scored on another fifth of the training tokens. Runs that are already in WORK are not
repeated.
"""

from __future__ import annotations

import json
import logging
import tempfile
from itertools import accumulate
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from resplit import main as resplit
from runs import ROOT
from threadpoolctl import threadpool_limits

from flower_ist.runs.app import load_app, run_in_process
from flower_ist.runs.log import read_run

WAYS: dict[str, dict[str, Any]] = {
    "ist": {"strategy": "ist"},
    **{f"ist of {k}": {"strategy": "ist", "num-slices": k} for k in (2, 4, 8)},
    "narrow": {"strategy": "fedavg-narrow"},
    "narrow, 2e-3": {"strategy": "fedavg-narrow", "learning-rate": 0.002},
    # One thing of the recipe changed at a time.
    "no standardize": {"strategy": "ist", "standardize": False},
    "no replay": {"strategy": "ist", "replay": False},
    "no head": {"strategy": "ist", "lda-skip": False},
    # Of benchmarks/choose_round.py.
    "validated": {"strategy": "ist", "validation-share": 0.5},
    "validated, 3e-2": {"strategy": "ist", "validation-share": 0.5, "learning-rate": 0.03},
    "whole": {"strategy": "fedavg"},
    "features": {"strategy": "fedavg-features"},
    "ridge": {"strategy": "ridge", "num-rounds": 1},
    "lda": {"strategy": "lda", "num-rounds": 1},
}

TABLE = ("ist", "narrow", "narrow, 2e-3")


def config_of(way: str) -> dict[str, Any]:
    """Return the keys that a way sets."""
    name, _, codec = way.partition(" in ")
    return {**WAYS[name], "wire-dtype": codec or "int8"}


def one(
    work: Path, tokens: str, clients: int, split: str, seed: int, way: str, held: bool = False
) -> dict[str, Any]:
    """Return what a run brought, for each round: test accuracy, and the bytes until then.

    The way is one of WAYS, in int8, or with another wire dtype: ``ist in int4``. With ``held`` a
    fifth of the training tokens, another one for each seed, is the test part.
    """
    name = f"{Path(tokens).name} {clients} {split} {seed} {way}{' held' * held}".replace("/", "_")
    file = work / "runs" / f"{name}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    data = ""
    if tokens != "demo" or split != "iid" or held:  # the embedded tokens are split already, IID
        # Two seeds share a draw of the split, so that three seeds have two of them.
        fold = seed if held else -1
        draw = f"{seed // 2}-{fold}" if held else f"{seed // 2}"
        folder = work / "tokens" / f"{Path(tokens).name}-{clients}-{split}-{draw}"
        if not folder.exists():
            resplit(tokens, folder, clients=clients, split=split, seed=seed // 2, fold=fold)
        data = str(folder.absolute())
    app, changed = load_app(ROOT), config_of(way)
    slices = changed.get("num-slices", clients)
    config = {
        **app.config,
        "data-dir": data,
        "node-timeout": 0.0,
        "keep-checkpoints": 0,
        "num-rounds": 8,
        "num-slices": clients,
        "hidden-width": app.config["hidden-width"] * slices // clients,
        "min-train-nodes": clients,
        "min-available-nodes": clients,
        "seed": seed,
        **changed,
    }
    with tempfile.TemporaryDirectory() as folder_of_run:
        config["output-dir"] = f"{folder_of_run}/run"
        run_in_process(app.server_app, app.client_app, clients, config)
        lines = read_run(Path(config["output-dir"]))
    wire = [line["wire_bytes_down"] + line["wire_bytes_up"] for line in lines]
    found = {
        "tokens": Path(tokens).name,
        "clients": clients,
        "split": split,
        "seed": seed,
        "way": way,
        "accuracy": [100 * line["accuracy"] for line in lines],
        "megabytes": [so_far / 1e6 for so_far in accumulate(wire)],
        "kilobytes a message": lines[-1]["wire_bytes_down"] / clients / 1e3,
        "loss": lines[-1]["loss"],
    }
    if "validation_accuracy" in lines[-1]:
        found["validation"] = [100 * line["validation_accuracy"] for line in lines]
        found["model round"] = lines[-1]["model_round"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found))
    return found


def main(
    work: Path,
    tokens: list[str],
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "4,8,16,32",
    split: Annotated[str, typer.Option(help="As prep takes it.")] = "iid",
    seeds: int = 3,
    ways: Annotated[str, typer.Option(help="Which, with ; between them.")] = ";".join(TABLE),
    held: Annotated[bool, typer.Option(help="Test on a fifth of the training tokens.")] = False,
) -> None:
    """Run what is missing, and print one line for each set and number of clients."""
    logging.disable(logging.WARNING)
    threadpool_limits(1)
    chosen = ways.split(";")
    print(f"| tokens, clients, {split} | kB a message | " + " | ".join(chosen) + " |")
    print("|---" * (len(chosen) + 2) + "|")
    for count in map(int, clients.split(",")):
        for folder in tokens:
            cells, size = [], 0.0
            for way in chosen:
                runs = [one(work, folder, count, split, n, way, held) for n in range(seeds)]
                cells.append(f"{mean(run['accuracy'][-1] for run in runs):.2f}")
                size = size or runs[0]["kilobytes a message"]
            name = f"{Path(folder).name}, {count} | {size:.1f}"
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    typer.run(main)
