"""Unknown widths of a network, and what is learned of them: they are equal, or cannot be cut.

Before a network is read, every axis of every parameter is a width of its own. Each operation then
says which axes belong together, and :class:`Widths` works out what follows: an addition makes two
widths one, a concatenation puts several side by side, a view makes blocks of them, and what no rule
understands is kept whole, with the reason.

An axis is a list of runs: ``(width, entries that each neuron owns)``, or ``(None, entries)`` for
what is not cut. Two lists are unified from left to right; whatever has to be split or joined for
that is written into the widths themselves (``into``), so all axes see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


class Width:
    """A width that may turn out to be another one, several, or none.

    Attributes:
        count: its number of neurons.
        into: the runs that it turned out to be; None as long as it is a width of its own.
        why: why it is kept whole.
        view: the view that made blocks of it, if that was a guess.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.into: Runs | None = None
        self.why: str | None = None
        self.view: object = None


Run = tuple[Width | None, int]
Runs = list[Run]


def uncut(length: int) -> Runs:
    """Return the runs of an axis that is not cut."""
    return [(None, length)]


def fresh(length: int) -> Runs:
    """Return the runs of an axis of which nothing is known; one entry alone cannot be cut."""
    return [(Width(length), 1)] if length > 1 else uncut(length)


def run_length(run: Run) -> int:
    """Return the number of entries of a run."""
    width, block = run
    return block if width is None else width.count * block


def length_of(runs: Runs) -> int:
    """Return the number of entries of an axis."""
    return sum(map(run_length, runs))


def resolve(runs: Runs) -> Runs:
    """Return the runs as they are known by now."""
    found: Runs = []
    for width, block in runs:
        if width is None:
            pieces: Runs = [(None, block)]
        elif width.into is not None:
            pieces = [(w, inner * block) for w, inner in resolve(width.into)]
        else:
            pieces = [(None, block)] if width.count == 1 else [(width, block)]
        for piece, entries in pieces:
            if piece is None and found and found[-1][0] is None:
                found[-1] = (None, found[-1][1] + entries)
            elif piece is not None or entries:
                found.append((piece, entries))
    return found


def is_uncut(runs: Runs) -> bool:
    """Return whether nothing of an axis is cut."""
    return all(width is None for width, _ in resolve(runs))


class Widths:
    """What is learned of the widths of one network.

    Attributes:
        at: the operation that is read now, for reasons.
    """

    def __init__(self) -> None:
        self.at = ""

    def keep_whole(self, runs: Runs, why: str) -> Runs:
        """Cut nothing of an axis; return it as it is then."""
        for width, _ in resolve(runs):
            if width is not None:
                width.into = uncut(width.count)
                width.why = f"{why} ({self.at})" if self.at else why
        return uncut(length_of(runs))

    def coarsen(self, width: Width, count: int) -> Width:
        """Make consecutive neurons one, so that ``count`` are left."""
        coarse = Width(count)
        width.into = [(coarse, width.count // count)]
        return coarse

    def unify(self, one: Runs, other: Runs, why: str = "tied to an axis that is whole") -> None:
        """Make two axes cut alike: the same neurons own the same entries."""
        while True:
            left, right = resolve(one), resolve(other)
            while left and right:
                if left[0][0] is None and right[0][0] is None:
                    common = min(left[0][1], right[0][1])
                    left[:1] = [(None, left[0][1] - common)] if left[0][1] > common else []
                    right[:1] = [(None, right[0][1] - common)] if right[0][1] > common else []
                elif left[0] == right[0]:
                    del left[0], right[0]
                else:
                    break
            if not left and not right:
                return
            if not left or not right:
                self.keep_whole(one, "added to an axis of another length")
                self.keep_whole(other, "added to an axis of another length")
                return
            self._meet(left[0], right[0], why)

    def divide(self, runs: Runs, lengths: Sequence[int]) -> list[Runs]:
        """Return the consecutive pieces of an axis that have these lengths."""
        while True:
            left, pieces = resolve(runs), []
            for length in lengths:
                piece = self._take(left, length)
                if piece is None:
                    break
                pieces.append(piece)
            else:
                return pieces

    def divide_equally(self, runs: Runs, count: int) -> list[Runs]:
        """Return consecutive pieces of one length that are all cut alike."""
        pieces = self.divide(runs, [length_of(runs) // count] * count)
        for piece in pieces[1:]:
            self.unify(pieces[0], piece)
        return [resolve(piece) for piece in pieces]

    def _take(self, left: Runs, length: int) -> Runs | None:
        """Take a piece off an axis; None where a width had to be split for that first."""
        piece: Runs = []
        while length:
            width, block = left[0]
            entries = run_length(left[0])
            if entries <= length:
                piece.append(left.pop(0))
                length -= entries
            elif width is None:
                piece.append((None, length))
                left[0] = (None, entries - length)
                length = 0
            else:
                self._split(width, block, length, "divided inside of a neuron")
                return None
        return piece

    def _split(self, width: Width, block: int, entries: int, why: str) -> None:
        """Make two widths of one, the first of them with so many entries."""
        if entries % block:
            self.keep_whole([(width, block)], why)
            return
        first, second = Width(entries // block), Width(width.count - entries // block)
        width.into = [(first, 1), (second, 1)]

    def _meet(self, one: Run, other: Run, why: str) -> None:
        """Learn something from two runs that begin at the same entry and are not the same."""
        if run_length(one) > run_length(other) or other[0] is None:
            one, other = other, one
        (narrow, narrow_block), (wide, wide_block) = one, other
        if narrow is None:  # and the other one is a width
            self._meet_uncut(narrow_block, other, why)
        elif wide is None or narrow is wide:
            self.keep_whole([one], why if wide is None else "tied to itself in another order")
        elif run_length(one) < run_length(other):
            self._split(wide, wide_block, run_length(one), "its blocks do not fit a neighbor's")
        elif narrow_block == wide_block:
            narrow.into = [(wide, 1)]
        else:
            count = math.gcd(narrow.count, wide.count)
            common = self.coarsen(narrow, count)
            wide.into = [(common, wide.count // count)]

    def _meet_uncut(self, entries: int, run: Run, why: str) -> None:
        width, block = run
        if width is None or entries >= run_length(run) or entries % block:
            self.keep_whole([run], why)
            return
        self._split(width, block, entries, why)
        if width.into is not None:
            self.keep_whole(width.into[:1], why)
