"""A dict that knows what was written to it last."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from itertools import islice
from typing import Self, TypeVar

_Value = TypeVar("_Value")


class TrackedDict(UserDict[str, _Value]):
    """What is remembered of each client, when a round writes to a few of many.

    A checkpoint takes what has been written since the one before it, which grows with the clients
    of a round and not with all of them. The last written entries are the last in order. An entry's
    value is replaced, never changed in place, and no entry is removed.

    Attributes:
        writes: how many entries have been written so far, each as often as it was.
    """

    writes = 0

    def __setitem__(self, key: str, value: _Value) -> None:
        """Write an entry, and move it to the end."""
        self.data.pop(key, None)
        self.data[key] = value
        self.writes += 1

    def __ior__(self, entries: Mapping[str, _Value]) -> Self:  # type: ignore[override, misc]
        """Write entries one by one: UserDict's own would do so unnoticed."""
        self.update(entries)
        return self

    def __delitem__(self, key: str) -> None:
        """Refuse: a reader of the changes would not learn of it."""
        raise TypeError(f"{key!r} cannot be removed: no entry of a TrackedDict can.")

    def since(self, writes: int) -> dict[str, _Value]:
        """Return the entries written since there had been so many writes, and perhaps some more.

        An entry that was written twice leaves room for one that was written before.
        """
        last = list(islice(reversed(self.data), self.writes - writes))
        return {key: self.data[key] for key in reversed(last)}
