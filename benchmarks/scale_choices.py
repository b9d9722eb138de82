"""What carries a slice's scale under plain SGD, and which widths are cut: on scikit-learn's digits.

The tables of docs/method.md. Four clients, IID, four slices; accuracy on 400 test images after the
last round, one seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.quickstart.task import Data, Net, load_data, test
from flower_ist.modules.derive import derive_axes
from flower_ist.modules.fit import fit
from flower_ist.modules.subject import State
from flower_ist.submodels.axes import Axes
from flower_ist.submodels.cut import Cut, Returned
from flower_ist.submodels.merging import merge
from flower_ist.submodels.partition import partition
from flower_ist.submodels.parts import Part

CLIENTS = 4
Make = Callable[[], nn.Module]


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    images = [load_data(client, CLIENTS)[0] for client in range(CLIENTS)]
    axes = derive_axes(Net(), images[0][0][:2])
    outgoing = powers(axes, lambda part: float(part.summed))
    rates = (0.02, 0.05, 0.1)
    print("| quickstart CNN, SGD with momentum, 15 rounds | " + " | ".join(map(str, rates)) + " |")
    print("|---|---|---|---|")
    for title, of_axes, square in (
        ("FedAvg", None, False),
        ("IST, root of H/n on both sides", axes, False),
        ("IST, H/n on outgoing weights", outgoing, False),
        ("the same, their learning rate times (H/n)²", outgoing, True),
        ("IST, not scaled", powers(axes, lambda part: 0.0), False),
    ):
        found = [run(Net, of_axes, images, 15, 3, lr, square=square) for lr in rates]
        print(
            f"| {title} | " + " | ".join(f"{accuracy:.1f} %" for accuracy in found) + " |",
            flush=True,
        )

    flat = [(x[:, 0, 6:-6:2, 6:-6:2].flatten(1), y) for x, y in images]
    inner = derive_axes(deep(), flat[0][0][:2])
    chain = derive_axes(deep(), flat[0][0][:2], widths="all")
    print("\n| 64-128-128-128-128-10, 32 rounds | SGD 0.05 | Adam 0.002 |")
    print("|---|---|---|")
    for title, of_axes, whole_rounds in (
        ("FedAvg", None, 0),
        ("every second width", inner, 0),
        ("all widths", chain, 0),
        ("all widths, root of H/n", powers(chain, lambda part: part.power / 2), 0),
        ("all widths, not scaled", powers(chain, lambda part: 0.0), 0),
        ("all widths, after 8 rounds of FedAvg", chain, 8),
    ):
        row = [
            run(deep, of_axes, flat, 32, 2, lr, adam=adam, whole_rounds=whole_rounds)
            for adam, lr in ((False, 0.05), (True, 0.002))
        ]
        print(
            f"| {title} | " + " | ".join(f"{accuracy:.1f} %" for accuracy in row) + " |", flush=True
        )


def deep() -> nn.Module:
    """Four hidden layers of 128."""
    sizes = [64, 128, 128, 128, 128]
    layers: list[nn.Module] = []
    for k in range(4):
        layers += [nn.Linear(sizes[k], sizes[k + 1]), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 10))


def powers(axes: Axes, power: Callable[[Part], float]) -> Axes:
    """Return axes with another power of H / n for each part."""
    parts = {
        name: tuple(tuple(p._replace(power=power(p)) for p in axis) for axis in all_)
        for name, all_ in axes.parts.items()
    }
    return replace(axes, parts=parts)


def run(
    make: Make,
    axes: Axes | None,
    data: list[Data],
    rounds: int,
    epochs: int,
    lr: float,
    *,
    adam: bool = False,
    square: bool = False,
    whole_rounds: int = 0,
) -> float:
    """Return the accuracy in percent after some rounds; NaN if a weight is no number any more."""
    torch.manual_seed(0)
    state: State = {n: t.numpy().copy() for n, t in make().state_dict().items()}
    for number in range(1, rounds + 1):
        slices = None
        if axes is not None and number > whole_rounds:
            slices = partition(0, number, axes.widths, CLIENTS)
        returned, cuts = [], []
        for client, (x, y) in enumerate(data):
            if slices is None or axes is None:
                sent, factors = state, {}
            else:
                cuts.append(Cut(axes, slices[(client + number) % CLIENTS]))
                sent, factors = cuts[-1].take(state), cuts[-1].lr_scales()
            model = fit(make(), {n: torch.tensor(t) for n, t in sent.items()})
            scales = {n: f**2 for n, f in factors.items()} if square else {}
            train(model, x, y, epochs, lr, scales, adam=adam)
            returned.append({n: t.numpy() for n, t in model.state_dict().items()})
        if not all(np.isfinite(t).all() for reply in returned for t in reply.values()):
            return np.nan
        if cuts:
            merge(state, [Returned(c, r, 1.0) for c, r in zip(cuts, returned, strict=True)])
        else:
            state = {n: np.mean([r[n] for r in returned], axis=0) for n in state}
    model = make()
    model.load_state_dict({n: torch.tensor(t) for n, t in state.items()})
    images, labels = load_data(0, CLIENTS)[1]
    if make is deep:
        images = images[:, 0, 6:-6:2, 6:-6:2].flatten(1)
    return 100 * test(model, (images, labels))


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epochs: int,
    lr: float,
    scales: dict[str, float],
    *,
    adam: bool,
) -> None:
    """Train as a ClientApp would that knows nothing of slices, but for the scales."""
    groups = [
        {"params": [p], "lr": lr * scales.get(name, 1.0)} for name, p in model.named_parameters()
    ]
    optimizer = torch.optim.Adam(groups) if adam else torch.optim.SGD(groups, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(y)), 32):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


if __name__ == "__main__":
    main()
