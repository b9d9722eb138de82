"""What wire dtypes do to accuracy and bytes: IST and FedAvg on the demo tokens, in process.

    python benchmarks/wire_dtypes.py [--rounds 10] [--hidden-width 1024] [--local-steps 160]

Four clients, one seed, plain, every other setting as in pyproject.toml. The bytes cover the whole
run, counted on the serialized messages; ``fewer`` is the factor by which they are fewer than with
float32.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from runs import quiet_run

# (down, up)
DTYPES = (
    ("float32", "float32"),
    ("float16", "float16"),
    ("float32", "int8"),
    ("int8", "int8"),
    ("int8", "int4"),
    ("int4", "int8"),
    ("int4", "int4"),
)
STRATEGIES = ("ist", "fedavg")


def main() -> None:
    """Print one row for each strategy and pair of dtypes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--hidden-width", type=int, default=1024)
    parser.add_argument("--local-steps", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    print("| strategy | down | up | wire MB down | wire MB up | fewer | best | final | last loss |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for strategy in STRATEGIES:
        whole = 0
        for down, up in DTYPES:
            lines = quiet_run(
                Path(tempfile.mkdtemp()),
                strategy=strategy,
                num_rounds=chosen.rounds,
                hidden_width=chosen.hidden_width,
                local_steps=chosen.local_steps,
                seed=chosen.seed,
                wire_dtype=f"{down}:{up}",
            )
            sent = sum(line["wire_bytes_down"] for line in lines)
            came = sum(line["wire_bytes_up"] for line in lines)
            whole = whole or sent + came
            accuracy = [100 * line["accuracy"] for line in lines]
            print(
                f"| {strategy} | {down} | {up} | {sent / 1e6:.3f} | {came / 1e6:.3f} "
                f"| {whole / (sent + came):.2f} | {max(accuracy):.2f} % | {accuracy[-1]:.2f} % "
                f"| {lines[-1]['loss']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
