"""Closed-form heads by five-fold cross-validation on training tokens: what goes inside the net.

    python benchmarks/heads.py TOKENS ...

TOKENS are folders that ``flower-ist prep`` wrote; ``demo`` stands for the embedded tokens. No test
example is read. For each head it prints the accuracy, and the mean loss where its outputs, times
each of three scales, are the logits: 2, 4 and 8 ln C for ridge, and 1/4, 1/2 and 1 for LDA. The
penalty is that of ridge by generalized cross-validation.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from flower_ist.statistics.lda import lda_heads
from flower_ist.statistics.ridge import RidgePath, ridge_head
from flower_ist.statistics.sums import Head, Statistics
from flower_ist.tokens.demo import train_shard
from flower_ist.tokens.shard import TokenShard, open_shard

FOLDS = 5
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
SCALES = (0.25, 0.5, 1.0)
Logits = NDArray[Any]


def heads(statistics: Statistics) -> dict[str, tuple[Head, tuple[float, ...]]]:
    """Return each head, with the scales of its outputs to try."""
    total, classes = float(statistics.counts.sum()), len(statistics.counts)
    path = RidgePath.of(statistics)
    penalty = PENALTIES[path.best_penalty(PENALTIES, total)]
    same, less, more = lda_heads(statistics, [penalty, penalty / 10, penalty * 10])
    of_ridge = tuple(factor * math.log(classes) for factor in (2.0, 4.0, 8.0))
    return {
        "ridge": (ridge_head(path.solve(penalty)), of_ridge),
        "LDA": (same, SCALES),
        "LDA, a tenth of the penalty": (less, SCALES),
        "LDA, ten times the penalty": (more, SCALES),
    }


def tokens_of(folder: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return all clients' tokens (N, D) and labels (N,)."""
    shards: list[TokenShard]
    if folder == "demo":
        shards = [train_shard(client, 4) for client in range(4)]
    else:
        shards = [open_shard(shard) for shard in sorted(Path(folder).glob("client-*"))]
    tokens, labels = zip(*(shard.batch(slice(None)) for shard in shards), strict=True)
    return np.concatenate(tokens), np.concatenate(labels)


def mean_loss(logits: Logits, labels: NDArray[np.int64]) -> float:
    """Return the mean of -log softmax of logits (N, C) at the labels (N,)."""
    peaked = logits - logits.max(axis=1, keepdims=True)
    return float(
        np.mean(np.log(np.exp(peaked).sum(axis=1)) - peaked[np.arange(len(labels)), labels])
    )


def main(tokens: Annotated[list[str], typer.Argument(help="Folders of prep, or demo.")]) -> None:
    """Print one line for each set and head."""
    print("| tokens | head | accuracy, % | loss by scale |\n|---|---|---|---|")
    for folder in tokens:
        x, y = tokens_of(folder)
        fold = np.random.default_rng(77).permutation(len(x)) % FOLDS
        found: dict[str, list[list[float]]] = {}
        for number in range(FOLDS):
            held = fold == number
            sums = Statistics.empty(int(y.max()) + 1, x.shape[1], gram=True)
            sums.add_tokens(x[~held], y[~held])
            for name, (head, scales) in heads(sums).items():
                logits = x[held] @ head["fc1.weight"].T + head["fc1.bias"]
                accuracy = 100 * float((logits.argmax(axis=1) == y[held]).mean())
                losses = [mean_loss(scale * logits, y[held]) for scale in scales]
                found.setdefault(name, []).append([accuracy, *losses])
        for name, rows in found.items():
            accuracy, *losses = np.mean(rows, axis=0)
            cells = ", ".join(f"{loss:.3f}" for loss in losses)
            print(f"| {Path(folder).name} | {name} | {accuracy:.2f} | {cells} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
