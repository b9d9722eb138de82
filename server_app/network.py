"""The net that a run trains: its widths, which of them sub-models divide, and its input features.

With ``cut=alternate`` no weight is cut on both sides. Hidden layers 1, 3, ... have H neurons, of
which a slice holds H / K; those between have H / K and are never cut. So slice and whole differ in
as many layers as they must, and a round of K slices trains every weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flower_ist.classifier.features import RandomFeatures
from flower_ist.classifier.mlp import mlp_shapes
from server_app.settings import Settings
from server_app.strategies import CLOSED_FORM

# What a reply may hold besides numbers: facts, with the names of thousands of classes.
_MOST_BESIDES = 4 * 2**20


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron on tokens.

    Attributes:
        dims: (D, H1, ..., C), the widths that are trained.
        cut: numbers of the hidden layers that sub-models divide.
        features: applied to the tokens first; None leaves them unchanged.
    """

    dims: list[int]
    cut: tuple[int, ...] = ()
    features: RandomFeatures | None = None


def network_of(settings: Settings, dim: int, num_classes: int) -> Network:
    """Return the net that the settings ask for.

    Args:
        settings: of the run.
        dim: D, numbers in a token.
        num_classes: C.
    """
    name = settings.strategy
    if name == "ridge-features":
        features = RandomFeatures.draw(settings.seed, dim, dim)
        return Network([features.dim, num_classes], features=features)
    if name in CLOSED_FORM:
        return Network([dim, num_classes])
    if name == "fedavg-features":
        features = RandomFeatures.draw(settings.seed, settings.hidden_width, dim)
        return Network([features.dim, num_classes], features=features)
    width = settings.hidden_width // (settings.num_slices or 1)
    if name == "fedavg-narrow":
        return Network([dim, *[width] * settings.hidden_layers, num_classes])
    layers = range(1, settings.hidden_layers + 1)
    cut = tuple(layer for layer in layers if settings.cut == "all" or layer % 2)
    hidden = [settings.hidden_width if layer in cut else width for layer in layers]
    return Network([dim, *hidden, num_classes], cut)


def most_bytes(network: Network, dim: int, num_classes: int) -> int:
    """Return how many bytes a client's reply may have: the whole model or statistics, in float64.

    Args:
        network: the one that is trained.
        dim: D, numbers in a token.
        num_classes: C.
    """
    width = max(dim, network.dims[0])
    statistics = width * (width + 1) // 2 + width * num_classes
    model = sum(math.prod(shape) for shape in mlp_shapes(network.dims).values())
    return _MOST_BESIDES + 8 * max(statistics, model)
