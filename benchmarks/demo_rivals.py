"""Every kind of strategy on the demo tokens, in process: accuracy and bytes on the wire.

Four clients, 160 steps per round, plain, one seed. Takes about 3 minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from runs import quiet_run

STRATEGIES = {
    "ist": 10,
    "ist-fixed": 10,
    "fedavg": 10,
    # Their one round finds the head.
    "ridge": 1,
    "fedcof": 1,
    "fedncm": 1,
}


def main() -> None:
    """Print the table of docs/results.md."""
    print("| strategy | rounds | wire MB in all | best accuracy | final accuracy |")
    print("|---|---|---|---|---|")
    for strategy, rounds in STRATEGIES.items():
        run = quiet_run(Path(tempfile.mkdtemp()), strategy=strategy, num_rounds=rounds)
        accuracy = [100 * line["accuracy"] for line in run]
        wire = sum(line["wire_bytes_down"] + line["wire_bytes_up"] for line in run) / 1e6
        print(
            f"| {strategy} | {rounds} | {wire:.2f} | {max(accuracy):.2f} % | {accuracy[-1]:.2f} % |"
        )


if __name__ == "__main__":
    main()
