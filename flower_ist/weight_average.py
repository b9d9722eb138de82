"""The running mean of the model over the last rounds: less noise for evaluation, at no bytes.

Clients go on from the model itself; only what is evaluated and written as the run's model is the
mean. Averaging along the path of training: Polyak and Juditsky, "Acceleration of Stochastic
Approximation by Averaging", 1992, https://doi.org/10.1137/0330046.

The mean is exponential, so that it takes one copy of the model, not n. A round that is ``i`` rounds
old counts ``a^i`` with ``a = (n - 1) / (n + 1)``: the mean age of what is averaged is then
``a / (1 - a) = (n - 1) / 2`` rounds, as it is for the plain mean of the last n. The weights of the
rounds that there are sum to 1 from the first one on, so nothing pulls towards the initial model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flower_ist.checkpoint import State


class WeightAverage:
    """The mean of a model's arrays over about the last ``rounds`` rounds.

    Args:
        rounds: n; 1: the last round's arrays alone, bit for bit.

    Raises:
        ValueError: n is below 1.
    """

    def __init__(self, rounds: int) -> None:
        if rounds < 1:
            raise ValueError(f"The mean is over {rounds} rounds, but must be over at least 1.")
        self._decay = (rounds - 1) / (rounds + 1)
        self._total = 0.0
        self._mean: dict[str, NDArray[Any]] = {}

    def add(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Add a round's model, name -> array; names and shapes as in the rounds before.

        Arrays of whole numbers are not averaged: the last round's are kept.
        """
        self._total = self._decay * self._total + 1.0
        for name, weight in weights.items():
            if self._total == 1.0 or weight.dtype.kind != "f":
                self._mean[name] = np.array(weight)
            else:
                mean = self._mean[name].astype(np.float64)
                mean += (weight - mean) / self._total
                self._mean[name] = mean.astype(weight.dtype)

    def mean(self) -> dict[str, NDArray[Any]]:
        """Return the mean in the model's own dtypes; empty before the first :meth:`add`."""
        return dict(self._mean)

    def state(self) -> dict[str, State]:
        """Return the mean and the sum of the rounds' counts."""
        return {"total": self._total, "mean": dict(self._mean)}

    def load_state(self, state: Mapping[str, State]) -> None:
        """Take over what :meth:`state` returned."""
        self._total = cast(float, state["total"])
        self._mean = dict(cast(Mapping[str, NDArray[Any]], state["mean"]))
