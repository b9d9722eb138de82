"""The wire dtype ``compact``: a bit or two a weight, relative to what both ends know.

Sent is the difference from what the other end knows already. Up, that is the change, trained -
received. Down, it is the change since the initial weights, if the client can make those itself from
a seed. Either is rounded with one step for a whole tensor, and the whole numbers, most of them near
0, are coded in about their entropy (:mod:`flower_ist.wire.ans`).

What the rounding of a first layer costs is measured where it counts. A neuron computes w x, so an
error e of w changes its output by e x, whose mean square is e S e^T with S the covariance of what
it reads. With S = sum_k l_k v_k v_k^T, the coordinates sent are

    z_k = (w v_k) l_k^(p / 2)        q = round(z / step)

and the decoder inverts this: v_k are orthonormal. With p = 1 a direction in which tokens vary much
is sent finely, and one in which they hardly vary coarsely or not at all: of all errors of that many
bits, the outputs' is least (reverse water-filling). That serves the way down, where what is lost
only moves a client's start a little. Up, what is lost along the many directions of small variance
adds up over the rounds, so there p = 0; the directions still save a third of a bit, as changes are
large along few of them.

Both ends must have S; for tokens it comes with the prior. Other matrices, and all where S is not
known, are rounded as they are. Tensors with fewer than two axes are sent as float16, and integers
unchanged. What decoding allocates follows from the layout alone. However many threads either end
has, the same tensors give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.wire import ans
from flower_ist.wire.blas import blas_threads
from flower_ist.wire.layout import CodecError, Layout
from flower_ist.wire.quantize import decode, encode, encoded_bytes

_LEVELS = 127
# Of the root mean square of a matrix that is rounded as it is, either way.
_PLAIN_STEP = 0.5


@dataclass(frozen=True, eq=False)
class Directions:
    """Orthonormal directions of what a layer reads, and how much it varies along them.

    Attributes:
        basis: (D, D) float32, whose columns are the v_k.
        variances: (D,) float32 l_k above 0.
    """

    basis: NDArray[np.float32]
    variances: NDArray[np.float32]

    @classmethod
    def of(cls, rows: NDArray[np.floating[Any]], least: float) -> Directions:
        """Return the directions of a covariance that is the sum of the outer products of rows.

        Args:
            rows: (r, D), independent of each other, r from 1 to D.
            least: the variance along any direction across them, above 0.
        """
        # QR depends continuously on independent rows: two ends agree to float64's rounding, which
        # eigenvectors of nearly equal eigenvalues would not.
        exact = rows.astype(np.float64)
        with blas_threads(1):
            basis, _ = np.linalg.qr(exact.T, mode="complete")
        variances = np.full(exact.shape[1], least)
        variances[: len(exact)] = np.maximum((exact**2).sum(axis=1), least)
        return cls(basis.astype(np.float32), variances.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Known:
    """What both ends of a message know besides it.

    Attributes:
        start: tensors that are subtracted before they are sent; 0 for one that is not there.
        directions: of what the first matrix reads, if its rows have their length.
        power: p of the module's docstring.
        step: of the root mean square of the coordinates along directions.
    """

    start: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    directions: Directions | None = None
    power: float = 1.0
    step: float = 0.5

    def of_reply(self) -> Known:
        """Return what both ends know of the reply, which holds changes."""
        return Known({}, self.directions, power=0.0, step=1.0)


def encode_compact(tensors: Mapping[str, NDArray[Any]], layout: Layout, known: Known) -> bytes:
    """Return tensors' bytes on the wire.

    Args:
        tensors: exactly those of the layout.
        layout: their order, dtypes and shapes.
        known: to the decoder too.

    Raises:
        CodecError: values are not finite, or beyond float16 where that is sent.
    """
    scales, matrices, others = [], [], []
    for name, (dtype, shape) in layout.items():
        tensor = tensors[name]
        if name in known.start:
            tensor = tensor - known.start[name]
        if not _is_matrix(dtype, shape):
            others.append(encode(tensor, "int8"))
            continue
        weights = _weights(name, layout, known)
        numbers = tensor.reshape(shape[0], -1).astype(np.float32, copy=False)
        with blas_threads(1), np.errstate(over="ignore", invalid="ignore"):
            if weights is None:
                whole, scale = _rounded(numbers, _PLAIN_STEP)
            else:
                basis, factors = weights
                whole, scale = _rounded((numbers @ basis) * factors, known.step)
        scales.append(scale)
        matrices.append(np.ascontiguousarray(whole.T).tobytes())
    # What no coder shortens goes last.
    return ans.encode(b"".join([*matrices, *others, np.array(scales, "<f4").tobytes()]))


def decode_compact(data: bytes, layout: Layout, known: Known) -> dict[str, NDArray[Any]]:
    """Return the tensors that :func:`encode_compact` was given, rounded.

    Values may be infinite or not a number, as the scales may be anything.

    Raises:
        CodecError: the bytes are not those of such tensors.
    """
    matrices = [name for name, entry in layout.items() if _is_matrix(*entry)]
    others = [name for name in layout if name not in matrices]
    sizes = {
        name: math.prod(shape) if name in matrices else encoded_bytes(dtype, shape, "int8")
        for name, (dtype, shape) in layout.items()
    }
    raw = ans.decode(data, sum(sizes.values()) + 4 * len(matrices))
    found = np.frombuffer(raw, "<f4", len(matrices), sum(sizes.values()))
    scales, tensors, offset = dict(zip(matrices, found, strict=True)), {}, 0
    for name in [*matrices, *others]:
        dtype, shape = layout[name]
        body = raw[offset : offset + sizes[name]]
        offset += sizes[name]
        if name in scales:
            weights = _weights(name, layout, known)
            whole = np.frombuffer(body, np.int8).reshape(-1, shape[0]).T.astype(np.float32)
            with blas_threads(1), np.errstate(over="ignore", invalid="ignore"):
                if weights is None:
                    numbers = whole * scales[name]
                else:
                    basis, factors = weights
                    numbers = (whole * (scales[name] / factors)) @ basis.T
            tensor = numbers.reshape(shape).astype(dtype, copy=False)
        else:
            tensor = decode(body, dtype, shape, "int8")
        if name in known.start:
            tensor = (tensor + known.start[name]).astype(dtype, copy=False)
        tensors[name] = tensor
    return {name: tensors[name] for name in layout}


def _is_matrix(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    return dtype.kind == "f" and len(shape) > 1 and math.prod(shape) > 0


def _weights(
    name: str, layout: Layout, known: Known
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return basis and factors for the layout's first matrix, if directions of it are known."""
    first = next(n for n, entry in layout.items() if _is_matrix(*entry))
    found, shape = known.directions, layout[name][1]
    if found is None or name != first or shape[1:] != found.variances.shape:
        return None
    return found.basis, found.variances ** np.float32(known.power / 2)


def _rounded(
    numbers: NDArray[np.float32], step: float
) -> tuple[NDArray[np.int8], np.floating[Any]]:
    """Return whole numbers and the scale that brings them nearest to the numbers."""
    square = np.vdot(numbers, numbers) / np.float32(numbers.size)
    largest = max(-float(numbers.min()), float(numbers.max()))
    if not (np.isfinite(square) and np.isfinite(largest)):
        raise CodecError("holds values that are not finite numbers, or too large ones")
    length = np.float32(max(step * float(np.sqrt(square)), largest / _LEVELS))
    if not length > 0:
        return np.zeros(numbers.shape, np.int8), np.float32(0)
    exact = np.rint(numbers / length).clip(-_LEVELS, _LEVELS)
    fit = float(np.vdot(exact, numbers)) / max(float(np.vdot(exact, exact)), 1.0)
    return exact.astype(np.int8), np.float32(fit)
