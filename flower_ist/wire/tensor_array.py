"""A Flower Array that holds a numpy tensor and serializes it only when its bytes are needed.

Between a strategy and the filters around it a tensor crosses no network. Flower's own Array writes
it as .npy at once, and reading it back copies it again; this one passes the tensor on. For the
network, and for any reader of ``data``, it is byte for byte Flower's Array.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array
from numpy.typing import NDArray

from flower_ist.wire.protocol import NUMPY_STYPE


class TensorArray(Array):
    """An Array of one tensor, which must not change as long as the Array is in use.

    Args:
        tensor: of any shape; it is not copied.
    """

    # Flower writes this name before an object's bytes, and reads them back as that class.
    __qualname__ = "Array"

    def __init__(self, tensor: NDArray[Any]) -> None:
        self.__dict__.update(
            dtype=str(tensor.dtype), shape=tuple(tensor.shape), stype=NUMPY_STYPE, _tensor=tensor
        )

    @property
    def tensor(self) -> NDArray[Any]:
        """A read-only view of the tensor."""
        view: NDArray[Any] = self.__dict__["_tensor"].view()
        view.flags.writeable = False
        return view

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The tensor in .npy form."""
        if "_data" not in self.__dict__:
            buffer = BytesIO()
            np.save(buffer, self.__dict__["_tensor"], allow_pickle=False)
            self.__dict__["_data"] = buffer.getvalue()
        written: bytes = self.__dict__["_data"]
        return written

    def numpy(self) -> NDArray[Any]:
        """Return a copy of the tensor, as Flower's Array does."""
        copy: NDArray[Any] = self.__dict__["_tensor"].copy()
        return copy
