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

from flower_ist.blocks import Blocked, joined
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
        view = self._whole().view()
        view.flags.writeable = False
        return view

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The tensor in .npy form."""
        if "_data" not in self.__dict__:
            buffer = BytesIO()
            np.save(buffer, self._whole(), allow_pickle=False)
            self.__dict__["_data"] = buffer.getvalue()
        written: bytes = self.__dict__["_data"]
        return written

    def numpy(self) -> NDArray[Any]:
        """Return a copy of the tensor, as Flower's Array does."""
        return self._whole().copy()

    def _whole(self) -> NDArray[Any]:
        tensor: NDArray[Any] = self.__dict__["_tensor"]
        return tensor


class LazyArray(TensorArray):
    """An Array whose tensor is made whenever it is read, and takes no memory in between.

    A round's slices exist one block at a time this way, on their way out of the model and back into
    it.

    Args:
        dtype: of the tensor.
        shape: of the tensor.
        blocked: makes it.
        change: makes its difference from the tensor that was sent, if it came as such.
    """

    __qualname__ = "Array"

    def __init__(
        self,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        blocked: Blocked,
        change: Blocked | None = None,
    ) -> None:
        self.__dict__.update(
            dtype=str(dtype), shape=shape, stype=NUMPY_STYPE, _blocked=blocked, _change=change
        )

    @property
    def blocked(self) -> Blocked:
        """The tensor in blocks."""
        blocked: Blocked = self.__dict__["_blocked"]
        return blocked

    @property
    def change(self) -> Blocked | None:
        """Its difference from what was sent, if it came as such."""
        change: Blocked | None = self.__dict__["_change"]
        return change

    def _whole(self) -> NDArray[Any]:
        return joined(self.blocked.make(), np.dtype(self.dtype), self.shape)
