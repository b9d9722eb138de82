"""The net that a run trains: its widths, which of them sub-models divide, and its input features.

With ``cut=alternate`` no weight is cut on both sides. Hidden layers 1, 3, ... have H neurons, of
which a slice holds H / K; those between have H / K and are never cut. So slice and whole differ in
as many layers as they must, and a round of K slices trains every weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flower_ist.classifier.features import RandomFeatures
from flower_ist.classifier.mlp import mlp_shapes
from flower_ist.wire.protocol import COMPACT
from flower_ist.wire.quantize import encoded_bytes
from server_app.settings import Settings, SettingsError
from server_app.strategies import CLOSED_FORM

# What a train message holds besides the weights: names, layout, settings, Flower's envelope.
_OVERHEAD_BYTES = 2048
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

    Raises:
        SettingsError: not even one neuron a slice fits into ``slice-bytes``.
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
    slices = settings.num_slices or 1
    width = settings.hidden_width // slices
    if settings.slice_bytes and settings.hidden_layers:
        width = _widest(settings, dim, num_classes)
    if name == "fedavg-narrow":
        return Network([dim, *[width] * settings.hidden_layers, num_classes])
    layers = range(1, settings.hidden_layers + 1)
    cut = tuple(layer for layer in layers if settings.cut == "all" or layer % 2)
    whole = width * slices if settings.slice_bytes else settings.hidden_width
    hidden = [whole if layer in cut else width for layer in layers]
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


def slice_message_bytes(settings: Settings, width: int, dim: int, num_classes: int) -> int:
    """Return the bytes of a train message whose net has ``width`` neurons in each hidden layer.

    In ``compact`` it depends on the weights: what int4 takes is the most that was met.
    """
    down, up = ("int4" if dtype == COMPACT else dtype for dtype in settings.wire_dtypes())
    shapes = mlp_shapes([dim, *[width] * settings.hidden_layers, num_classes]).values()
    single = np.dtype(np.float32)
    return _OVERHEAD_BYTES + max(
        sum(encoded_bytes(single, shape, dtype) for shape in shapes) for dtype in (down, up)
    )


def _widest(settings: Settings, dim: int, num_classes: int) -> int:
    """Return the most neurons per slice for which a message stays within ``slice-bytes``."""

    def fits(width: int) -> bool:
        return slice_message_bytes(settings, width, dim, num_classes) <= settings.slice_bytes

    if not fits(1):
        least = slice_message_bytes(settings, 1, dim, num_classes)
        raise SettingsError(
            f"'slice-bytes' is {settings.slice_bytes}, but a message with one neuron takes "
            f"{least:,} bytes: set at least that."
        )
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
