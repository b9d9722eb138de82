"""What 100 in-process rounds with 8 clients cost beyond training and evaluation.

Measured in CPU seconds, so that other load on the machine hardly matters.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

from runs import quiet_run

from client_app import app as client_module
from client_app.training import train
from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.compare.planning import PLAIN_SETTINGS
from server_app import evaluation as server_module

# The steps of a comparison, longer rounds, and shorter ones.
CASES = [
    ("ist", PLAIN_SETTINGS["local-steps"]),
    ("fedavg", PLAIN_SETTINGS["local-steps"]),
    ("ist", 160),
    ("ist", 40),
]


class Stopwatch:
    """A function that adds up the processor's seconds in another one."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        start = process_time()
        result = self.function(*arguments, **options)
        self.seconds += process_time() - start
        return result


def above_training(strategy: str, steps: int, rounds: int) -> float:
    """Return the seconds of a run that are not training or evaluation, as a share of training."""
    training, evaluation = Stopwatch(train), Stopwatch(evaluate_arrays)
    settings = {key.replace("-", "_"): value for key, value in PLAIN_SETTINGS.items()}
    with ExitStack() as patches:
        patches.enter_context(patch.object(client_module, "train", training))
        patches.enter_context(patch.object(server_module, "evaluate_arrays", evaluation))
        start = process_time()
        quiet_run(
            Path(tempfile.mkdtemp()),
            num_clients=8,
            num_rounds=rounds,
            **{**settings, "strategy": strategy, "local_steps": steps},
        )
        whole = process_time() - start
    return (whole - evaluation.seconds) / training.seconds - 1


def main(rounds: int = 100, cases: int = len(CASES)) -> None:
    """Print the share for the settings of ``flower-ist compare``, then for other rounds.

    Args:
        rounds: of each run.
        cases: only so many of them.
    """
    quiet_run(Path(tempfile.mkdtemp()), num_rounds=1, local_steps=1)  # imports and first pages
    print(f"| {rounds} rounds, 8 clients, H=1024 | local steps | above the training itself |")
    print("|---|---|---|")
    for strategy, steps in CASES[:cases]:
        print(f"| {strategy} | {steps} | {100 * above_training(strategy, steps, rounds):.0f} % |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
