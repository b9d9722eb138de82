"""The tensors of a record, each decoded, cut out or restored when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flwr.app import Array
from numpy.typing import NDArray

from flower_ist.wire.layout import Layout, decode, largest
from flower_ist.wire.tensor_array import LazyArray


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

    def largest(self, name: str) -> float:
        """Return :func:`largest` of a tensor, without reading it again if that is known."""
        known = getattr(self._record[name], "largest", None)
        return largest(self[name]) if known is None else float(known)

    def forget(self) -> None:
        """Keep no tensor that can be made again."""
        for array in self._record.values():
            if isinstance(array, LazyArray):
                array.forget()
