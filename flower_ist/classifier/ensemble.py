"""An ensemble of a model's slices, each as a separate net: their averaged logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.classifier.mlp import layers_of, logits
from flower_ist.classifier.skip import Model
from flower_ist.submodels.cut import Cut


def ensemble_of(weights: Mapping[str, NDArray[Any]], cuts: Sequence[Cut]) -> Model:
    """Return the net whose logits are the mean of those of a model's slices, each as its own net.

    Args:
        weights: the whole model.
        cuts: the slices, e.g. those of ``ist-fixed``.

    Returns:
        A function of tokens (B, D) that returns logits (B, C).
    """
    nets = [layers_of(cut.take(weights)) for cut in cuts]
    return lambda tokens: np.stack([logits(net, tokens) for net in nets]).mean(axis=0)
