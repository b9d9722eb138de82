"""Devices of unequal capacity on a ResNet-18 with BatchNorm: IST, HeteroFL, FedRolex and FedAvg.

Torchvision's ResNet-18, 16 to 40 channels wide, on scikit-learn's digits; four clients, IID, that
hold 0.1, 0.2, 0.3 and 0.4 of the cut channels; plain SGD with momentum.
"""

from __future__ import annotations

import argparse

import torch
from flwr.serverapp.strategy import FedAvg, Strategy
from modules_learn import CLIENTS, colored, federate
from zoo import narrow_resnet18

from benchmarks.quickstart.task import load_data
from flower_ist import SubmodelStrategy, derive_axes

CAPACITIES = (0.1, 0.2, 0.3, 0.4)


def main() -> None:
    """Print one table: accuracy as merged, with BatchNorm measured again, and bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| strategy | seed | accuracy | BatchNorm measured again | MB |")
    print("|---|---|---|---|---|")
    for name in ("ist", "heterofl", "fedrolex", "fedavg"):
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)
            model = narrow_resnet18()
            strategy: Strategy = FedAvg(fraction_evaluate=0.0)
            if name != "fedavg":
                axes = derive_axes(model, colored(load_data(0, CLIENTS)[0][0][:2]))
                strategy = SubmodelStrategy(axes, scheme=name, capacities=CAPACITIES, seed=seed)
            accuracy, again, sent = federate(
                strategy, narrow_resnet18, model, arguments.rounds, 0.05
            )
            print(
                f"| {name} | {seed} | {100 * accuracy:.2f} % | {100 * again:.2f} % | "
                f"{sent / 1e6:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
