"""A client's training loop against a bare PyTorch loop on the same net and batches in memory."""

from __future__ import annotations

import time
from statistics import median

import torch
from torch.nn import functional

from client_app.batches import Batches
from client_app.local_settings import LocalSettings
from client_app.training import train
from flower_ist.classifier.mlp import MLP, initial_weights
from flower_ist.tokens.demo import train_shard

STEPS = 1000
PAIRS = 5


def main() -> None:
    """Print the ratio of steps per second, pair by pair."""
    torch.set_num_threads(1)
    shard = train_shard(0, 4)
    dims = [shard.meta.dim, 256, 256, shard.meta.num_classes]
    settings = LocalSettings(
        server_round=1, local_steps=STEPS, batch_size=64, learning_rate=5e-4, seed=0
    )
    tokens, labels = map(torch.from_numpy, shard.batch(Batches(shard, settings, "a").order()))

    def bare() -> None:
        model = MLP.from_arrays(initial_weights(dims, 0))
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, fused=True)
        for first in range(0, len(tokens), 64):
            optimizer.zero_grad()
            loss = functional.cross_entropy(
                model(tokens[first : first + 64]), labels[first : first + 64]
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def ours() -> None:
        train(MLP.from_arrays(initial_weights(dims, 0)), Batches(shard, settings, "a"))

    ours()
    bare()
    ratios = []
    for _ in range(PAIRS):
        times = []
        for function in (ours, bare):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    print("| client's steps/s over a bare loop's | median | range |")
    print("|---|---|---|")
    print(f"| {STEPS} steps of 64, a slice at K=4 | {median(ratios):.2f} | ", end="")
    print(f"{min(ratios):.2f} to {max(ratios):.2f} |")


if __name__ == "__main__":
    main()
