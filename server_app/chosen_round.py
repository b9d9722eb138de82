"""Which round's model is the run's: the last one, unless validation plainly says otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


class ChosenRound:
    """The last round whose accuracy on validation is within one standard error of the best so far.

    The curve of a run is flat at its end, and the best of many rounds that are equally good is the
    luckiest. So an earlier round is taken only where the difference is more than the noise of the
    validation part: after a round that did harm, or where training is worse than round 0.

    Args:
        examples: of the validation part.
        lines: of the run's log so far, if it is resumed.

    Attributes:
        number: the round; -1 before the first one.
    """

    def __init__(self, examples: int, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self._examples = examples
        self._best = 0.0
        self._last = self.number = -1
        for line in lines:
            if "validation_accuracy" in line:
                self.look(line["round"], line["validation_accuracy"])

    def look(self, server_round: int, accuracy: float) -> bool:
        """Tell whether the model of a round that is over takes the place of the chosen one.

        Args:
            server_round: the round.
            accuracy: on the validation part, 0 to 1.
        """
        self._last, self._best = server_round, max(self._best, accuracy)
        # Of a share of so many independent examples.
        error = math.sqrt(self._best * (1 - self._best) / self._examples)
        if accuracy < self._best - error:
            return False
        self.number = server_round
        return True

    def why(self) -> str:
        """Return which round it is, and why, to follow "the model of the"."""
        if self.number == self._last:
            return f"last round, {self._last}, which is within the noise of the best on validation,"
        return (
            f"round {self.number}, as later ones are worse than the best by more than the standard "
            f"error of {self._examples} validation examples,"
        )
