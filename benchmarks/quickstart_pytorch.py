"""Flower's quickstart with FedAvg, and with IST after a few changed lines: accuracy and bytes.

The two apps are in benchmarks/quickstart/; this script runs each in process, with its own SGD.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
import tempfile
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.quickstart.task import Net, load_data, test  # noqa: E402
from flower_ist.grids.metered import MeteredGrid  # noqa: E402
from flower_ist.runs.app import run_in_process  # noqa: E402


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default="", help="folder of Fashion-MNIST; if empty: digits")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the net is small: a second thread would wait for the first
    for app in ("server_app", "client_app"):
        removed, added = changed_lines(app)
        print(f"{app}.py: {removed} lines removed, {added} added")
    print("| strategy | seed | accuracy | MB on the wire |")
    print("|---|---|---|---|")
    for name in ("fedavg", "ist"):
        for seed in range(arguments.seeds):
            accuracy, total = run(
                name, arguments.rounds, arguments.epochs, arguments.lr, seed, arguments.data
            )
            print(f"| {name} | {seed} | {100 * accuracy:.2f} % | {total / 1e6:.2f} |", flush=True)


def run(
    name: str, rounds: int, epochs: int, lr: float, seed: int, data: str = ""
) -> tuple[float, int]:
    """Return a run's test accuracy after the last round, and its bytes on the wire."""
    torch.manual_seed(seed)
    client_app = importlib.import_module(f"benchmarks.quickstart.{name}.client_app").app
    inner: ServerApp = importlib.import_module(f"benchmarks.quickstart.{name}.server_app").app
    metered = ServerApp()
    total = 0

    @metered.main()
    def main(grid: Grid, context: Context) -> None:
        nonlocal total
        meter = MeteredGrid(grid)
        inner(meter, context)
        each = [meter.traffic(number).total for number in range(rounds + 1)]
        total = sum(traffic.wire_bytes_down + traffic.wire_bytes_up for traffic in each)

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "final_model.pt"
        settings: dict[str, bool | float | int | str] = {
            "num-server-rounds": rounds,
            "local-epochs": epochs,
            "learning-rate": lr,
            "output": str(output),
            "data": data,
        }
        run_in_process(metered, client_app, 4, settings)
        model = Net()
        model.load_state_dict(torch.load(output, weights_only=True))
    return test(model, load_data(0, 4, data)[1]), total


def changed_lines(app: str) -> tuple[int, int]:
    """Return how many lines of an app are removed and added on the way from FedAvg to IST."""
    diff = difference(app)
    return sum(line[0] == "-" for line in diff), sum(line[0] == "+" for line in diff)


def difference(app: str) -> list[str]:
    """Return the lines that differ between the two versions of an app."""
    folder = ROOT / "benchmarks" / "quickstart"
    old, new = ((folder / n / f"{app}.py").read_text().splitlines() for n in ("fedavg", "ist"))
    return list(difflib.unified_diff(old, new, lineterm="", n=0))[2:]


if __name__ == "__main__":
    main()
