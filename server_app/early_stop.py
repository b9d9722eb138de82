"""When a run is over before its last round: at a target accuracy, or when it gets no better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class EarlyStop:
    """Looks at the rounds of a run in their order, those of the log first if it is resumed.

    The accuracy is that on the validation part of the server's shard, or without one that on the
    test part, which then no longer tells how good the model is on images it was not chosen by.

    Args:
        target: accuracy, 0 to 1, with which a run is over; 0: none is.
        patience: rounds without a better accuracy after which it is over; 0: no number is.
    """

    def __init__(self, target: float, patience: int) -> None:
        self._target, self._patience = target, patience
        self._best, self._best_round = -1.0, 0
        self._lost = 0  # rounds since then that changed nothing

    def why(self, line: Mapping[str, Any]) -> str:
        """Return why a run is over after a round, or an empty text; round 0 ends none.

        Args:
            line: of the run log.
        """
        name = "validation_accuracy" if "validation_accuracy" in line else "accuracy"
        accuracy, server_round = line[name], line["round"]
        if accuracy is not None and accuracy > self._best:
            self._best, self._best_round, self._lost = accuracy, server_round, 0
        if server_round == 0:
            return ""
        if line.get("coverage") == 0:
            self._lost += 1  # too few were there: the model could not get better
        if self._target and accuracy is not None and accuracy >= self._target:
            return f"{name} {accuracy:.4f} has reached 'target-accuracy' {self._target:g}"
        if self._patience and server_round - self._best_round - self._lost >= self._patience:
            return (
                f"{name} has not risen above the {self._best:.4f} of round {self._best_round} for "
                f"{self._patience} rounds ('patience')"
            )
        return ""
