"""Momentum and Adam of the server, on what a round changed in the merged model. Pure numpy.

A round's change is taken as a gradient: ``d = merged - before``. The moments are arrays of the
whole model, each entry at the index of its weight, so that they stay with a neuron wherever it is
trained next, and nothing of them is ever sent.

* ``momentum``: ``m = beta m + d``, ``w = before + eta m``: FedAvgM, Hsu et al., 2019,
  https://arxiv.org/abs/1909.06335;
* ``adam``: ``m = beta_1 m + (1 - beta_1) d``, ``v = beta_2 v + (1 - beta_2) d^2``,
  ``w = before + eta m / (sqrt(v) + tau)`` from ``v = tau^2``: FedAdam, Reddi et al., "Adaptive
  Federated Optimization", ICLR 2021, https://arxiv.org/abs/2003.00295, algorithm 2.

There every client trains every weight. Here most rounds leave some weights untrained: these keep
both their value and their moments, as if the round had not been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flower_ist.axes import Axes
from flower_ist.checkpoint import State
from flower_ist.slicing import Returned, Tensors, entries

SERVER_OPTIMISERS = ("momentum", "adam")
# They are measured, not trained: a moment would carry a variance below 0.
_RUNNING_STATISTICS = ("running_mean", "running_var")


class ServerOptimiser:
    """What the server makes of each round's change. It belongs to one strategy.

    Besides its moments, one or two copies of the model in memory, a round takes another copy for
    the model as it was before.

    Args:
        kind: one of :data:`SERVER_OPTIMISERS`.
        learning_rate: eta, more than 0.
        beta_1: share of the first moment that stays, at least 0 and below 1; ``momentum`` calls it
            beta.
        beta_2: share of the second moment that stays (``adam``).
        tau: how far ``adam`` adapts: a change far below it moves a weight in proportion.

    Raises:
        ValueError: with one sentence that names what is wrong.
    """

    def __init__(
        self,
        kind: str,
        *,
        learning_rate: float = 1.0,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-3,
    ) -> None:
        if kind not in SERVER_OPTIMISERS:
            raise ValueError(
                f"There is no server optimiser {kind!r}: choose one of "
                f"{', '.join(SERVER_OPTIMISERS)}."
            )
        for name, value in (("learning rate", learning_rate), ("tau", tau)):
            if not 0 < value < np.inf:
                raise ValueError(
                    f"The server optimiser's {name} is {value}, but must be above 0 and finite."
                )
        for name, value in (("beta 1", beta_1), ("beta 2", beta_2)):
            if not 0 <= value < 1:
                raise ValueError(
                    f"The server optimiser's {name} is {value}, but must be at least 0 and below 1."
                )
        self.kind = kind
        self.learning_rate = learning_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.tau = tau
        self._first: dict[str, NDArray[Any]] = {}
        self._second: dict[str, NDArray[Any]] = {}

    def step(
        self,
        tensors: Tensors,
        before: Tensors,
        axes: Axes,
        returned: Sequence[Returned],
    ) -> None:
        """Turn the merged model into the one that the moments make of it, in place.

        Args:
            tensors: the merged model; writable arrays. Those of whole numbers stay as they are, and
                so do running statistics of PyTorch's normalisation layers.
            before: the model as it was before the merge.
            axes: which axis belongs to which width.
            returned: the replies that were merged; what none of them holds stays as it is.
        """
        for name, merged in tensors.items():
            if merged.dtype.kind != "f" or name.endswith(_RUNNING_STATISTICS):
                continue
            # Small changes would vanish in a float16 moment.
            dtype = np.result_type(merged.dtype, np.float32)
            held = trained_entries(axes, name, returned)
            old = before[name][held].astype(dtype)
            move = self._move(name, held, merged[held].astype(dtype) - old)
            merged[held] = old + self.learning_rate * move

    def state(self) -> dict[str, State]:
        """Return the moments, name of the tensor -> array of its shape."""
        return {"first": dict(self._first), "second": dict(self._second)}

    def load_state(self, state: Mapping[str, State]) -> None:
        """Take over what :meth:`state` returned."""
        for own, key in ((self._first, "first"), (self._second, "second")):
            own.clear()
            moments = cast(Mapping[str, NDArray[Any]], state[key])
            # Copies: what was read from a file may not be writable.
            own.update({name: np.array(moment) for name, moment in moments.items()})

    def _move(self, name: str, held: NDArray[np.bool_], change: NDArray[Any]) -> NDArray[Any]:
        """Update the held entries' moments; return their move before the learning rate."""
        if name not in self._first:
            self._first[name] = np.zeros(held.shape, change.dtype)
        first = self.beta_1 * self._first[name][held]
        if self.kind == "momentum":
            first += change
            self._first[name][held] = first
            return first
        if name not in self._second:
            self._second[name] = np.full(held.shape, self.tau**2, change.dtype)
        first += (1 - self.beta_1) * change
        second = self.beta_2 * self._second[name][held] + (1 - self.beta_2) * change**2
        self._first[name][held] = first
        self._second[name][held] = second
        return cast(NDArray[Any], first / (np.sqrt(second) + self.tau))


def trained_entries(axes: Axes, name: str, returned: Sequence[Returned]) -> NDArray[np.bool_]:
    """Return a mask, shaped as the whole tensor, of the entries that some reply holds."""
    held = np.zeros(axes.shapes[name], dtype=np.bool_)
    for reply in returned:
        held[entries(axes, name, reply.indices)] = True
    return held
