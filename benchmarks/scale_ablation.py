"""What the scale of a slice and of its steps does: accuracy and loss on the demo tokens.

Four clients, H = 1024, plain, 160 steps per round, three seeds, in process: the median of the best
accuracy, and of the whole network's loss after the last round. Takes about 4 minutes.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from statistics import median
from unittest.mock import patch

from runs import quiet_run

from flower_ist.submodels.cut import Cut

SEEDS = (0, 1, 2)
VARIANTS = {
    # power of H / n that the weights carry, and whether the client is told of it
    "none, as in the authors' code": (0.0, False),
    "square root of H/n": (0.5, False),
    "H/n, steps not scaled": (1.0, False),
    "H/n, steps follow (the default)": (1.0, True),
}


def main() -> None:
    """Print the table of docs/method.md."""
    exact = Cut.factor
    print("| scale of a slice | best accuracy | last loss | range of accuracy |")
    print("|---|---|---|---|")
    for name, (power, told) in VARIANTS.items():

        def scaled(cut: Cut, tensor: str, power: float = power) -> float:
            return math.pow(float(exact(cut, tensor)), power)

        def hints(cut: Cut, told: bool = told) -> dict[str, float]:
            return {tensor: float(exact(cut, tensor)) for tensor in cut.axes.shapes} if told else {}

        with patch.object(Cut, "factor", scaled), patch.object(Cut, "factors", hints):
            runs = [
                quiet_run(Path(tempfile.mkdtemp()), seed=seed, hidden_layers=2, cut="all")
                for seed in SEEDS
            ]
        best = [100 * max(line["accuracy"] for line in rounds) for rounds in runs]
        loss = median(rounds[-1]["loss"] for rounds in runs)
        print(f"| {name} | {median(best):.2f} | {loss:.2f} | {min(best):.2f} to {max(best):.2f} |")


if __name__ == "__main__":
    main()
