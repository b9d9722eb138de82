"""ResNet-18 and a ViT in a federation: FedAvg and IST, accuracy and bytes.

torchvision's and timm's own classes with random weights, narrow, on scikit-learn's digits; four
clients, IID, each with the same plain SGD with momentum for both strategies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from zoo import narrow_resnet18, narrow_vit

from benchmarks.quickstart.task import load_data, test, train
from flower_ist import InProcessGrid, ISTStrategy, MeteredGrid, derive_axes, fit

CLIENTS = 4
MakeModel = Callable[[], nn.Module]


# Model, and the learning rate of its SGD, chosen for FedAvg.
MODELS: dict[str, tuple[MakeModel, float]] = {
    "torchvision ResNet-18": (narrow_resnet18, 0.05),
    "timm ViT": (lambda: narrow_vit(depth=4), 0.05),
}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="", help="only those whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | strategy | seed | accuracy | BatchNorm measured again | MB | of FedAvg's |")
    print("|---|---|---|---|---|---|---|")
    for name, (make, lr) in MODELS.items():
        if arguments.model not in name:
            continue
        for seed in range(arguments.seeds):
            whole = 0
            for strategy in ("fedavg", "ist"):
                accuracy, again, sent = compare(strategy, make, arguments.rounds, lr, seed)
                whole = whole or sent
                print(
                    f"| {name} | {strategy} | {seed} | {100 * accuracy:.2f} % | "
                    f"{100 * again:.2f} % | {sent / 1e6:.2f} | {100 * sent / whole:.1f} % |",
                    flush=True,
                )


def compare(
    name: str, make: MakeModel, rounds: int, lr: float, seed: int
) -> tuple[float, float, int]:
    """Run FedAvg or IST with four slices; see :func:`federate`."""
    torch.manual_seed(seed)
    model = make()
    if name == "fedavg":
        return federate(FedAvg(fraction_evaluate=0.0), make, model, rounds, lr)
    axes = derive_axes(model, colored(load_data(0, CLIENTS)[0][0][:2]))
    return federate(ISTStrategy(axes, num_slices=4, seed=seed), make, model, rounds, lr)


def federate(
    strategy: Strategy, make: MakeModel, model: nn.Module, rounds: int, lr: float
) -> tuple[float, float, int]:
    """Train a model on four clients' digits.

    Returns:
        Test accuracy after the last round; the same with BatchNorm's statistics measured again, on
        128 images of each client; bytes of all messages on the wire.
    """
    app = ClientApp()

    @app.train()
    def train_slice(message: Message, context: Context) -> Message:
        images, labels = load_data(int(context.node_config["partition-id"]), CLIENTS)[0]
        small = fit(make(), message)
        train(small, (colored(images), labels), 2, lr)
        metrics = MetricRecord({"num-examples": len(labels)})
        content = RecordDict({"arrays": ArrayRecord(small.state_dict()), "metrics": metrics})
        return Message(content, reply_to=message)

    grid = MeteredGrid(InProcessGrid(app, CLIENTS))
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        train_config=ConfigRecord(),
        num_rounds=rounds,
    )
    each = [grid.traffic(number).total for number in range(rounds + 1)]
    sent = sum(traffic.wire_bytes_down + traffic.wire_bytes_up for traffic in each)
    model.load_state_dict(result.arrays.to_torch_state_dict())
    images, labels = load_data(0, CLIENTS)[1]
    accuracy = test(model, (colored(images), labels))
    batches = [colored(load_data(client, CLIENTS)[0][0][:128]) for client in range(CLIENTS)]
    torch.optim.swa_utils.update_bn(batches, model)
    return accuracy, test(model, (colored(images), labels)), sent


def colored(images: Tensor) -> Tensor:
    """(N, 1, 28, 28) -> (N, 3, 16, 16), without the frame."""
    return images[..., 6:-6, 6:-6].expand(-1, 3, -1, -1)


if __name__ == "__main__":
    main()
