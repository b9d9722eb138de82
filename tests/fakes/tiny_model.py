"""A model small enough that its slices and merges are worked out by hand."""

import numpy as np

from flower_ist.submodels.axes import Axes, mlp_axes


def tiny_model() -> tuple[dict[str, np.ndarray], Axes]:
    """D=1, H=4, C=1. Weights 1 2 3 4 and biases 10 20 30 40 below, 5 6 7 8 and 100 above."""
    weights = {
        "fc1.weight": np.array([[1], [2], [3], [4]], np.float32),
        "fc1.bias": np.array([10, 20, 30, 40], np.float32),
        "fc2.weight": np.array([[5, 6, 7, 8]], np.float32),
        "fc2.bias": np.array([100], np.float32),
    }
    return weights, mlp_axes({name: w.shape for name, w in weights.items()})
