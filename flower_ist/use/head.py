"""The part of a model that turns tokens into logits, whole or a slice of it, ready for export."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.classifier.mlp import layers_of, logits
from flower_ist.classifier.predictor import Classifier
from flower_ist.classifier.skip import LinearSkip, with_skip
from flower_ist.errors import ArgumentError
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut
from flower_ist.submodels.partition import partition


@dataclass(frozen=True)
class Head:
    """A net on raw tokens, and a fixed linear head that is added to it.

    Attributes:
        net: ``fc1.weight`` to ``fcL.bias``.
        skip: the fixed head, if there is one.
        part: which slice of how many it is, as in ``1/4``; empty for the whole net.
    """

    net: Mapping[str, NDArray[np.float32]]
    skip: LinearSkip | None
    part: str = ""

    @classmethod
    def of(cls, classifier: Classifier) -> Head:
        """Return the whole head of a model."""
        return cls(classifier.net, classifier.skip)

    @property
    def dim(self) -> int:
        """D, the number of entries in a token."""
        return int(self.net["fc1.weight"].shape[1])

    @property
    def layers(self) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Weight and bias of each layer of the net."""
        return layers_of(self.net)

    def logits(self, tokens: NDArray[np.float32]) -> NDArray[Any]:
        """Return the logits (n, C) of tokens (n, D), by numpy."""
        return with_skip(lambda x: logits(self.layers, x), self.skip)(tokens)


def slice_head(head: Head, part: str, settings: Mapping[str, Any]) -> Head:
    """Return one slice of a head as a small net of its own; the fixed head stays whole.

    It is a slice as a round sends it: the neurons of the partition of round 1, with the weights
    that sum over them times H / n (:mod:`flower_ist.submodels.cut`).

    Args:
        head: the whole one.
        part: ``k/K``, from ``1/K`` to ``K/K``.
        settings: of the run: its seed, and which hidden layers it cuts.

    Raises:
        ArgumentError: the part cannot be read, or the net cannot be cut into so many.
    """
    numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", part)
    if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
        raise ArgumentError(f"A slice is written as k/K, from 1/K to K/K, not {part!r}.")
    number, count = int(numbers[1]), int(numbers[2])
    hidden = len(head.layers) - 1
    if not hidden:
        raise ArgumentError("This model has no hidden layer, so it has no slices: export it whole.")
    layers = [n for n in range(1, hidden + 1) if settings.get("cut") == "all" or n % 2]
    axes = mlp_axes({name: tensor.shape for name, tensor in head.net.items()}, layers)
    narrowest = min(axes.widths.values())
    if count > narrowest:
        raise ArgumentError(
            f"A layer has {narrowest} neurons: it cannot be cut into {count} slices."
        )
    slots = partition(int(settings.get("seed", 0)), 1, axes.widths, count)
    cut = Cut(axes, slots[number - 1])
    return replace(head, net=cut.take(head.net), part=f"{number}/{count}")
