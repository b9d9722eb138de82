"""Ideas for IST and for its narrow rival, by cross-validation on training tokens.

    python benchmarks/screen.py TOKENS ... [--clients 16] [--seeds 3] [--only 'ist*']

Each seed draws its own IID split of four fifths of the training tokens and is scored on the other
fifth, so no choice sees a test example. The nets, the optimizer and the loss are the app's; the
codec is left out. Prints, for each idea, accuracy after eight rounds, and the mean over the sets.
"""

from __future__ import annotations

import os

# Before numpy is imported: the nets are small.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import math
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import typer
from heads import FOLDS, PENALTIES, tokens_of
from numpy.typing import NDArray

from flower_ist.classifier.adam import Adam
from flower_ist.classifier.gradient import Workspace, loss_and_gradient
from flower_ist.classifier.mlp import initial_weights, layers_of, logits, mlp_shapes, views_of
from flower_ist.classifier.skip import LinearSkip
from flower_ist.statistics.lda import lda_heads
from flower_ist.statistics.ridge import RidgePath, ridge_head
from flower_ist.statistics.scale import TokenScale
from flower_ist.statistics.sums import Statistics

ROUNDS, EPOCHS, BATCH, WIDTH = 8, 12, 64, 1024
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Idea:
    """What is tried.

    Attributes:
        slices: how many of K/1,024-neuron slices the net has; 0: as many as clients. 1 is the
            narrow net; with fewer than clients several train each slice and are averaged.
        rate: learning rate.
        last_rate: what it falls to along a cosine over the rounds, as a share.
        head: lda, or ridge in units of 4 ln C, as it was before.
        share: of the head's logits.
        zero: the net's last layer begins at 0.
        follow: power of the slice's scale by which its output layer's learning rate is larger.
        decay: decoupled weight decay.
        average: how many last rounds' weights are averaged for the score.
        shared: part of a slice's neurons that all slices have, which all clients train and whose
            mean is taken, as in FedAvg.
    """

    slices: int = 0
    rate: float = 1e-3
    last_rate: float = 1.0
    head: str = "lda"
    share: float = 1.0
    zero: bool = False
    follow: float = 1.0
    decay: float = 0.0
    average: int = 1
    shared: float = 0.0


IST, NARROW = Idea(), Idea(slices=1, rate=2e-3)
IDEAS = {
    "ist": IST,
    "ist, ridge's head": replace(IST, head="ridge"),
    "ist, whole log-probabilities": replace(IST, share=2.0),
    "ist, a quarter": replace(IST, share=0.5),
    "ist, 5e-4": replace(IST, rate=5e-4),
    "ist, 2e-3": replace(IST, rate=2e-3),
    "ist, cosine to a tenth": replace(IST, last_rate=0.1),
    "ist, 4 slices": replace(IST, slices=4),
    "ist, 8 slices": replace(IST, slices=8),
    "ist, 64 slices": replace(IST, slices=64),
    "ist, output layer from zero": replace(IST, zero=True),
    "ist, output steps not scaled": replace(IST, follow=0.0),
    "ist, weight decay 1": replace(IST, decay=1.0),
    "ist, mean of 3 rounds": replace(IST, average=3),
    "ist, half of each slice shared": replace(IST, shared=0.5),
    "ist, three quarters shared": replace(IST, shared=0.75),
    "narrow": replace(NARROW, rate=1e-3),
    "narrow, 2e-3": NARROW,
    "narrow, 4e-3": replace(NARROW, rate=4e-3),
    "narrow, ridge's head": replace(NARROW, head="ridge"),
}


def simulate(x: NDArray[Any], y: NDArray[Any], clients: int, seed: int, idea: Idea) -> float:
    """Return the accuracy in percent on the held fifth after the last round."""
    held = np.random.default_rng(77).permutation(len(x)) % FOLDS == seed % FOLDS
    sums = Statistics.empty(int(y.max()) + 1, x.shape[1], gram=True)
    sums.add_tokens(x[~held], y[~held])
    skip, scale = _head(sums, idea), TokenScale.of(sums)
    z = ((x - scale.mean) / scale.spread).astype(np.float32)
    offset = skip.of(x).astype(np.float32)
    rows = np.random.default_rng(1000 + seed).permutation(np.flatnonzero(~held))
    shards = np.array_split(rows, clients)
    slices, width = idea.slices or clients, WIDTH // clients
    shared = round(idea.shared * width)
    dim, classes = x.shape[1], len(sums.counts)
    net = initial_weights([dim, shared + slices * (width - shared), classes], seed)
    if idea.zero:
        net = {name: 0 * tensor if name[2] == "2" else tensor for name, tensor in net.items()}
    past: list[Arrays] = []
    for number in range(1, ROUNDS + 1):
        generator = np.random.default_rng([seed, number])
        own = shared + generator.permutation(slices * (width - shared)).reshape(slices, -1)
        neurons = [np.concatenate([np.arange(shared), each]) for each in own]
        # What a slice's output weights are multiplied by, as it stands for all others.
        scales = np.repeat(np.array([1, slices], np.float32), [shared, width - shared])
        order = generator.permutation(max(slices, clients))[:clients] % slices
        falling = 0.5 * (1 + math.cos(math.pi * (number - 1) / ROUNDS))
        rate = idea.rate * (idea.last_rate + (1 - idea.last_rate) * falling)
        replies = [
            (
                neurons[k],
                _train(net, neurons[k], scales, z, y, offset, shard, rate, idea, generator),
            )
            for k, shard in zip(order, shards, strict=True)
        ]
        net = _merge(net, replies)
        past = [*past, net][-idea.average :]
    final = {name: np.mean([each[name] for each in past], axis=0) for name in net}
    found = logits(layers_of(final), z[held]) + offset[held]
    return 100 * float((found.argmax(axis=1) == y[held]).mean())


def _head(sums: Statistics, idea: Idea) -> LinearSkip:
    total = float(sums.counts.sum())
    path = RidgePath.of(sums)
    penalty = PENALTIES[path.best_penalty(PENALTIES, total)]
    if idea.head == "ridge":
        head = ridge_head(path.solve(penalty))
        scale = 4 * math.log(len(sums.counts))
        return LinearSkip(scale * head["fc1.weight"], scale * head["fc1.bias"])
    skip = LinearSkip.of_head(lda_heads(sums, [penalty])[0])
    return LinearSkip(idea.share * skip.weight, idea.share * skip.bias)


def _train(
    net: Arrays,
    neurons: NDArray[Any],
    scales: NDArray[np.float32],
    z: NDArray[Any],
    y: NDArray[Any],
    offset: NDArray[Any],
    shard: NDArray[Any],
    rate: float,
    idea: Idea,
    generator: np.random.Generator,
) -> Arrays:
    """Return a slice after a client's round, on the model's own scale."""
    slice_ = {
        "fc1.weight": net["fc1.weight"][neurons],
        "fc1.bias": net["fc1.bias"][neurons],
        "fc2.weight": net["fc2.weight"][:, neurons] * scales,
        "fc2.bias": net["fc2.bias"],
    }
    shapes = mlp_shapes([z.shape[1], len(neurons), len(net["fc2.bias"])])
    weights = np.concatenate([np.ravel(slice_[name]) for name in shapes], dtype=np.float32)
    gradient = np.empty_like(weights)
    trained = views_of(weights, shapes)
    layers, gradients = layers_of(trained), layers_of(views_of(gradient, shapes))
    factors = {"fc2.weight": np.tile(scales**idea.follow, len(net["fc2.bias"]))}
    rates = [
        (len(list(run)), rate * float(factor))
        for name in shapes
        for factor, run in groupby(factors.get(name, np.ones(trained[name].size)))
    ]
    optimizer, work = Adam(weights, rates), Workspace.of(layers, BATCH)
    steps = max(1, int(len(shard) * EPOCHS / BATCH))
    epochs = -(-steps * BATCH // len(shard))
    order = np.concatenate([generator.permutation(shard) for _ in range(epochs)])
    for step in range(steps):
        batch = order[step * BATCH : (step + 1) * BATCH]
        loss_and_gradient(layers, gradients, z[batch], y[batch], work, offset[batch].T)
        weights *= 1 - idea.decay * rate
        optimizer.step(gradient)
    return {**trained, "fc2.weight": trained["fc2.weight"] / scales}


def _merge(net: Arrays, replies: list[tuple[NDArray[Any], Arrays]]) -> Arrays:
    """Put slices back; where several clients trained a neuron, their mean."""
    total = {name: np.zeros_like(tensor) for name, tensor in net.items()}
    count = np.zeros(len(net["fc1.bias"]), np.float32)
    for neurons, reply in replies:
        count[neurons] += 1
        total["fc1.weight"][neurons] += reply["fc1.weight"]
        total["fc1.bias"][neurons] += reply["fc1.bias"]
        total["fc2.weight"][:, neurons] += reply["fc2.weight"]
    kept = count == 0
    for name, axis in (("fc1.weight", 0), ("fc1.bias", 0), ("fc2.weight", 1)):
        shape = [1] * total[name].ndim
        shape[axis] = -1
        total[name] /= np.maximum(count, 1).reshape(shape)
        total[name] = np.where(kept.reshape(shape), net[name], total[name])
    total["fc2.bias"] = np.mean([reply["fc2.bias"] for _, reply in replies], axis=0)
    return total


def main(tokens: list[str], clients: int = 16, seeds: int = 3, only: str = "*") -> None:
    """Print a line for each idea."""
    data = {Path(folder).name: tokens_of(folder) for folder in tokens}
    print(f"| {clients} clients | " + " | ".join(data) + " | mean |")
    print("|---" * (len(data) + 2) + "|")
    for name, idea in IDEAS.items():
        if fnmatch(name, only):
            found = [
                mean(simulate(x, y, clients, seed, idea) for seed in range(seeds))
                for x, y in data.values()
            ]
            cells = " | ".join(f"{accuracy:.2f}" for accuracy in [*found, mean(found)])
            print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
