"""The initial weights of a slice, made by a client itself, so that only their change is sent.

The server names the seed and the widths of the whole net in a message, and the strategy a slice's
neurons, one bit for each neuron of a layer that is cut: 128 bytes at H = 1,024, where the weights
would take 200 kB. Both ends then make the same tensors with :meth:`InitialWeights.part`.

numpy may draw other numbers from the same seed in another release. The message therefore also
carries a checksum of the slice's initial weights. A client that makes others says so, and gets
whole weights from the next round on.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.errors import FlowerIstError
from flower_ist.wire.layout import Layout
from flower_ist.wire.protocol import CANNOT_START, LR_SCALES_KEY, NEURONS_KEY

Tensors = Mapping[str, NDArray[Any]]
# Of one layer, and of weights in all: what a client allocates for a message is bounded.
_MOST_NEURONS = 2**20
_MOST_WEIGHTS = 2**27


class StartError(FlowerIstError):
    """Initial weights cannot be made as a message asks."""


@dataclass(frozen=True)
class InitialWeights:
    """A whole net's initial weights, by their seed.

    Attributes:
        seed: at least 0.
        dims: (D, H1, ..., C).
    """

    seed: int
    dims: tuple[int, ...]

    @classmethod
    def from_text(cls, text: str) -> tuple[InitialWeights, int]:
        """Read what :meth:`to_text` wrote: the weights, and the checksum of a slice's.

        Raises:
            StartError: it is something else, or describes a net of more than 2^27 weights.
        """
        try:
            seed, widths, checksum = text.split()
            found = cls(int(seed), tuple(int(width) for width in widths.split(",")))
            number = int(checksum, 16)
        except ValueError as err:
            raise StartError(f"{CANNOT_START}: {text[:60]!r} does not describe any.") from err
        fits = found.seed >= 0 and len(found.dims) > 1
        fits = fits and all(0 < width <= _MOST_NEURONS for width in found.dims)
        shapes = mlp_shapes(found.dims).values() if fits else ()
        if not fits or sum(int(np.prod(shape)) for shape in shapes) > _MOST_WEIGHTS:
            raise StartError(f"{CANNOT_START}: {text[:60]!r} is no net of at most 2^27 weights.")
        return found, number

    def to_text(self, part: Tensors) -> str:
        """Return seed, widths and the checksum of a slice, e.g. ``0 384,1024,10 1a2b3c4d``."""
        return f"{self.seed} {','.join(map(str, self.dims))} {checksum_of(part):08x}"

    def part(self, layout: Layout, config: ConfigRecord) -> dict[str, NDArray[Any]]:
        """Return the initial weights of a message's tensors.

        Args:
            layout: of the message's tensors: those of a slice of the net, or of all of it.
            config: of the message, in which a strategy names a slice's neurons and scales.

        Raises:
            StartError: they are no slice of this net, or the config does not say which.
        """
        whole, rows = _whole(self), self._rows(layout, config)
        scales = json.loads(str(config.get(LR_SCALES_KEY, "{}")))
        part = {}
        for name in layout:
            layer = int(name.removeprefix("fc").split(".")[0])
            tensor = whole[name] if rows[layer] is None else whole[name][rows[layer]]
            if tensor.ndim == 2 and rows[layer - 1] is not None:
                tensor = tensor[:, rows[layer - 1]]
            if name in scales:
                tensor = tensor * np.asarray(scales[name], tensor.dtype)
            part[name] = tensor
        return part

    def _rows(self, layout: Layout, config: ConfigRecord) -> list[NDArray[np.intp] | None]:
        """Return the slice's neurons of the input, each hidden layer and the output."""
        shapes = {name: shape for name, (_, shape) in layout.items()}
        bits = config.get(NEURONS_KEY, b"")
        left = np.unpackbits(np.frombuffer(bits if isinstance(bits, bytes) else b"", np.uint8))
        rows: list[NDArray[np.intp] | None] = [None]
        widths = [self.dims[0]]
        for layer, width in enumerate(self.dims[1:], start=1):
            kept = (shapes.get(f"fc{layer}.weight") or (0,))[0]
            if kept == width:
                rows.append(None)
            else:
                padded = -(-width // 8) * 8
                rows.append(np.flatnonzero(left[:width]))
                left = left[padded:]
            widths.append(kept)
        named = [width if r is None else len(r) for r, width in zip(rows, widths, strict=True)]
        if shapes != mlp_shapes(widths) or named != widths or left.size:
            raise StartError(f"{CANNOT_START}: the message's tensors are no slice of that net.")
        return rows


def neurons_to_bytes(widths: Mapping[str, int], indices: Mapping[str, NDArray[np.intp]]) -> bytes:
    """Return one bit for each neuron of the layers that are cut, in the order of the widths.

    Args:
        widths: number of neurons of each hidden width.
        indices: width -> the slice's neurons, in ascending order.
    """
    found = []
    for name, width in widths.items():
        if len(indices[name]) < width:
            mask = np.zeros(width, bool)
            mask[indices[name]] = True
            found.append(np.packbits(mask).tobytes())
    return b"".join(found)


def checksum_of(part: Tensors) -> int:
    """Return the CRC-32 of tensors, one after another."""
    found = 0
    for tensor in part.values():
        little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        found = zlib.crc32(little.tobytes(), found)
    return found


def start_from(text: str, layout: Layout, config: ConfigRecord) -> dict[str, NDArray[Any]]:
    """Return the initial weights that a message describes, on the client.

    Raises:
        StartError: it describes none, or other ones are made here.
    """
    whole, expected = InitialWeights.from_text(text)
    part = whole.part(layout, config)
    if checksum_of(part) != expected:
        raise StartError(
            f"{CANNOT_START}: numpy {np.__version__} draws other numbers than the server's."
        )
    return part


@lru_cache(maxsize=1)
def _whole(initial: InitialWeights) -> dict[str, NDArray[np.float32]]:
    weights = initial_weights(initial.dims, initial.seed)
    for tensor in weights.values():
        tensor.flags.writeable = False
    return weights
