"""What 100 rounds with 8 clients take in process above the training itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

from runs import quiet_run

from client_app import app
from client_app.training import train

ROUNDS = 100


def main() -> None:
    """Print the seconds above training as a share of training."""
    seconds: list[float] = []

    def timed(*arguments: object) -> float:
        start = perf_counter()
        loss = train(*arguments)  # type: ignore[arg-type]
        seconds.append(perf_counter() - start)
        return loss

    print("| 100 rounds, 8 clients, H=1024 | above the training itself |")
    print("|---|---|")
    for steps in (160, 40):
        seconds.clear()
        start = perf_counter()
        with patch.object(app, "train", timed):
            rounds = quiet_run(
                Path(tempfile.mkdtemp()),
                num_clients=8,
                num_rounds=ROUNDS,
                local_steps=steps,
            )
        whole = perf_counter() - start - sum(line["seconds"]["evaluate"] for line in rounds)
        print(f"| {steps} local steps | {100 * (whole / sum(seconds) - 1):.0f} % |")


if __name__ == "__main__":
    main()
