"""Devices of unequal capacity on a ResNet-18 with BatchNorm: IST, HeteroFL, FedRolex and FedAvg.

Torchvision's ResNet-18, 16 to 40 channels wide, on scikit-learn's digits; four clients, IID, that
hold 0.1, 0.2, 0.3 and 0.4 of the cut channels; plain SGD with momentum. One seed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zoo import narrow_resnet18

from benchmarks.quickstart.task import load_data, test, train
from flower_ist.modules.derive import derive_axes
from flower_ist.modules.fit import fit
from flower_ist.modules.subject import State
from flower_ist.submodels.assignment import Assignment
from flower_ist.submodels.cut import Returned
from flower_ist.submodels.merging import merge
from flower_ist.submodels.schemes import SCHEMES

CAPACITIES = (0.1, 0.2, 0.3, 0.4)


def main() -> None:
    """Print one table: accuracy as merged, with BatchNorm measured again, and weights sent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| strategy | accuracy | BatchNorm measured again | weights sent a round |")
    print("|---|---|---|---|")
    for name in ("ist", "heterofl", "fedrolex", "fedavg"):
        accuracy, again, sent = run(name, rounds)
        print(f"| {name} | {100 * accuracy:.1f} % | {100 * again:.1f} % | {100 * sent:.0f} % |")


def run(name: str, rounds: int) -> tuple[float, float, float]:
    """Return the accuracy after the last round, both ways, and the mean share that clients get."""
    torch.manual_seed(0)
    data = [load_data(client, 4)[0] for client in range(4)]
    model = narrow_resnet18()
    axes = derive_axes(model, _colored(data[0][0][:2]))
    scheme = SCHEMES["ist" if name == "fedavg" else name]
    assignment = Assignment(axes, scheme, capacities=CAPACITIES)
    if name == "fedavg":
        assignment = Assignment(axes, SCHEMES["heterofl"], capacities=(1.0,))
    state: State = {n: t.numpy().copy() for n, t in model.state_dict().items()}
    shares: list[float] = []
    for number in range(1, rounds + 1):
        replies = []
        for cut, (x, y) in zip(assignment.cuts(number, range(4)), data, strict=True):
            small = fit(narrow_resnet18(), {n: torch.tensor(t) for n, t in cut.take(state).items()})
            train(small, (_colored(x), y), 2, 0.05)
            returned = {n: t.numpy() for n, t in small.state_dict().items()}
            replies.append(Returned(cut, returned, 1.0))
            shares.append(axes.share({w: len(rows) for w, rows in cut.indices.items()}))
        merge(state, replies)
    model.load_state_dict({n: torch.tensor(t) for n, t in state.items()})
    images, labels = load_data(0, 4)[1]
    accuracy = test(model, (_colored(images), labels))
    batches = [_colored(x[:128]) for x, _ in data]
    torch.optim.swa_utils.update_bn(batches, model)
    return accuracy, test(model, (_colored(images), labels)), float(np.mean(shares))


def _colored(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1)


if __name__ == "__main__":
    main()
