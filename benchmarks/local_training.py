"""A client's training loop against a bare PyTorch loop on the same slice and batches in memory.

Both use one thread and are timed alternately, in CPU seconds. Torch gets its batches as float32
tensors; the client reads its shard. The matrix products alone are timed too, because every loop in
numpy or torch needs them: where they take most of the time, no other code can make a loop much
faster.

    python benchmarks/local_training.py
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from timing import in_turns
from torch import nn
from torch.nn import functional

from client_app.batches import Batches
from client_app.local_settings import LocalSettings
from client_app.training import train
from flower_ist.classifier.mlp import initial_weights
from flower_ist.tokens.demo import train_shard
from flower_ist.tokens.shard import Encoder, Mask, ShardMeta, TokenShard

# (input, hidden ..., classes) and how many steps: slices, the default (K = 4 of 1,024) among them,
# and a whole model.
CASES: list[tuple[tuple[int, ...], int]] = [
    ((384, 64, 64, 10), 500),
    ((384, 74, 10), 500),
    ((384, 256, 10), 300),
    ((384, 256, 256, 10), 200),
    ((384, 421, 10), 200),
    ((768, 1024, 1024, 10), 30),
]
BATCH = 64
TURNS = 7


def torch_loop(dims: tuple[int, ...], batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Train as a PyTorch user would: a Sequential, cross-entropy, Adam's fastest form."""
    layers = [m for pair in pairwise(dims) for m in (nn.Linear(*pair), nn.ReLU())][:-1]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, fused=True)
    for tokens, labels in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(tokens), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def products(dims: tuple[int, ...], steps: int) -> None:
    """Do the matrix products of so many steps, in numpy."""
    sizes = [(BATCH, n) for n in dims]
    values, deltas = ([np.ones(size, np.float32) for size in sizes] for _ in range(2))
    weights = [np.ones((h, d), np.float32) for d, h in pairwise(dims)]
    gradients = [weight.copy() for weight in weights]
    for _ in range(steps):
        for layer, weight in enumerate(weights):
            np.dot(values[layer], weight.T, out=values[layer + 1])
        for layer in reversed(range(len(weights))):
            np.dot(deltas[layer + 1].T, values[layer], out=gradients[layer])
            if layer:
                np.dot(deltas[layer + 1], weights[layer], out=deltas[layer])


def shard_of(dim: int, classes: int) -> TokenShard:
    """Return the demo's first client of four, with tokens of ``dim`` random numbers."""
    shard = train_shard(0, 4)
    tokens = np.random.default_rng(0).standard_normal((len(shard), dim)).astype(np.float16)
    names = tuple(map(str, range(classes)))
    meta = ShardMeta(len(shard), dim, names, Encoder("", "", 28, 4), Mask("", 0, 0, 1, 1), 0, 0, 0)
    return TokenShard(meta, tokens, shard.labels, shard.image_ids)


def line(dims: tuple[int, ...], steps: int) -> str:
    """Time one slice and return its line of the table."""
    shard = shard_of(dims[0], dims[-1])
    settings = LocalSettings(1, steps, BATCH, 5e-4, seed=0)
    batches = [
        (torch.tensor(tokens), torch.tensor(labels))
        for tokens, labels in Batches(shard, settings, "a")
    ]
    weights = initial_weights(dims, 0)
    ways = {
        "ours": lambda: train(weights, Batches(shard, settings, "a")),
        "torch": lambda: torch_loop(dims, batches),
        "products": lambda: products(dims, steps),
    }
    in_turns(ways, 1)
    seconds = in_turns(ways, TURNS, busy=True)
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["torch"], strict=True)]
    ours, theirs, floor = (1e3 * median(times) / steps for times in seconds.values())
    return (
        f"| {'-'.join(map(str, dims))} | {theirs:.3f} | {ours:.3f} | {floor:.3f} "
        f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


def main() -> None:
    """Print a table: milliseconds a step, and how many times as many steps a second."""
    torch.set_num_threads(1)
    print("| slice, batches of 64 | torch, ms | client, ms | products, ms | steps/s over torch's |")
    print("|---|---|---|---|---|")
    with threadpool_limits(1):
        for dims, steps in CASES:
            print(line(dims, steps))


if __name__ == "__main__":
    main()
