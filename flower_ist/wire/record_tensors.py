"""The tensors of ordinary Flower records, checked; some are made only when they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from flower_ist.blocks import Blocked, blocks_of
from flower_ist.wire.layout import Layout, WireError
from flower_ist.wire.protocol import NUMPY_STYPE
from flower_ist.wire.tensor_array import LazyArray, TensorArray


def tensors_of(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return the tensors of an ordinary ArrayRecord of this process, as read-only views.

    Raises:
        WireError: an array is not a numpy array.
    """
    return {
        name: decode(array, np.dtype(array.dtype), tuple(array.shape))
        for name, array in record.items()
    }


def record_of(tensors: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return an ordinary ArrayRecord of tensors without copying them."""
    record = ArrayRecord()  # given a dict, it would serialize every array
    for name, tensor in tensors.items():
        record[name] = TensorArray(tensor)
    return record


def decode(array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an ordinary Flower Array's values as a read-only view, after checking every claim.

    ``Array.numpy()`` allocates whatever an array's inner header asks for; this reads the header
    first and allocates nothing.

    Raises:
        WireError: the array, or the .npy data in it, is not of this dtype and shape.
    """
    _check(array, dtype, shape)
    if isinstance(array, TensorArray):  # made in this process, so its claims are true
        return array.tensor
    stream = BytesIO(array.data)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise WireError(f"The array's data are .npy version {version} instead of (1, 0).")
        inner = np.lib.format.read_array_header_1_0(stream)
    except WireError:
        raise
    except Exception as err:  # numpy's header parser raises errors of many kinds
        raise WireError("The array's data are not in .npy form.") from err
    inner_shape, fortran_order, inner_dtype = inner
    if (inner_dtype, inner_shape) != (dtype, shape):
        raise WireError(
            f"The array's data hold {inner_dtype}{list(inner_shape)}, not {dtype}{list(shape)}."
        )
    count = math.prod(shape)
    if len(array.data) - stream.tell() != count * dtype.itemsize:
        raise WireError(f"The array's data are cut off or too long for {dtype}{list(shape)}.")
    flat = np.frombuffer(array.data, dtype, count=count, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _check(array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Refuse an array that is not said to be a numpy array of this dtype and shape."""
    if array.stype != NUMPY_STYPE:
        raise WireError(f"The array is of kind {array.stype!r} instead of {NUMPY_STYPE!r}.")
    if (array.dtype, tuple(array.shape)) != (str(dtype), shape):
        raise WireError(
            f"The array is {array.dtype}{list(array.shape)} instead of {dtype}{list(shape)}."
        )


class RecordTensors(Mapping[str, NDArray[Any]]):
    """The tensors of an ordinary ArrayRecord, as read-only views, each decoded when it is read.

    Args:
        record: holds at least the layout's arrays.
        layout: what they must be.

    Reading a tensor raises :class:`WireError` if its array is not of this dtype and shape.
    """

    def __init__(self, record: Mapping[str, Array], layout: Layout) -> None:
        self._record = record
        self._layout = layout

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Decode a tensor."""
        return decode(self._record[name], *self._layout[name])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the layout's order."""
        return iter(self._layout)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._layout)

    def blocked(self, name: str) -> Blocked:
        """Return a tensor in blocks; what is made when it is read is not made whole."""
        array = self._record[name]
        if isinstance(array, LazyArray):
            _check(array, *self._layout[name])
            return array.blocked
        return Blocked(partial(blocks_of, self[name]))

    def changes(self) -> dict[str, Blocked]:
        """Return those differences from the tensors that were sent that came as such."""
        lazy = {n: a for n, a in self._record.items() if isinstance(a, LazyArray)}
        return {name: array.change for name, array in lazy.items() if array.change is not None}
