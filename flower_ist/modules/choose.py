"""Choose the widths that are cut: a set without neighbors that saves the most bytes.

Two widths are neighbors if some weight has both of them, one on each side. Cutting both squares
what is missing from that weight, and the variance of a slice's outputs grows with every such layer
(docs/method.md), so by default no two neighbors are cut. This is a weighted independent set; the
graphs have tens of vertices and are nearly trees, so branch and bound finds the best one, and after
a set number of branches the best so far is good enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

_MOST_BRANCHES = 20_000


def choose(savings: Mapping[str, int], neighbors: Mapping[str, Set[str]]) -> list[str]:
    """Return widths of which no two are neighbors, with the largest sum of savings.

    Args:
        savings: width -> bytes that cutting it saves.
        neighbors: width -> its neighbors; a width that is its own is never chosen.
    """
    able = {width for width in savings if width not in neighbors[width]}
    best: set[str] = set()
    for part in _connected(able, neighbors):
        best |= _best(part, savings, neighbors)
    return [width for width in savings if width in best]


def _best(
    widths: set[str], savings: Mapping[str, int], neighbors: Mapping[str, Set[str]]
) -> set[str]:
    best: set[str] = set()
    most, branches = -1, 0
    waiting: list[tuple[set[str], set[str]]] = [(set(), widths)]  # chosen, undecided
    while waiting and branches < _MOST_BRANCHES:
        chosen, left = waiting.pop()
        branches += 1
        chosen, left = _take_free(chosen, left, savings, neighbors)
        saved = sum(savings[width] for width in chosen)
        if saved > most:
            most, best = saved, chosen
        if not left or saved + sum(savings[width] for width in left) <= most:
            continue
        crowded = max(
            sorted(left), key=lambda width: (len(neighbors[width] & left), savings[width])
        )
        # The last one is looked at first: greedily, the one that saves more than its neighbors.
        without, with_it = (
            (chosen, left - {crowded}),
            (
                chosen | {crowded},
                left - {crowded} - neighbors[crowded],
            ),
        )
        rivals = sum(savings[width] for width in neighbors[crowded] & left)
        waiting += [without, with_it] if savings[crowded] > rivals else [with_it, without]
    return best


def _take_free(
    chosen: set[str],
    left: set[str],
    savings: Mapping[str, int],
    neighbors: Mapping[str, Set[str]],
) -> tuple[set[str], set[str]]:
    """Choose every width that saves as much as all its neighbors that are left."""
    while True:
        free = next(
            (
                width
                for width in sorted(left)
                if savings[width] >= sum(savings[other] for other in neighbors[width] & left)
            ),
            None,
        )
        if free is None:
            return chosen, left
        chosen, left = chosen | {free}, left - {free} - neighbors[free]


def _connected(widths: set[str], neighbors: Mapping[str, Set[str]]) -> list[set[str]]:
    left, parts = set(widths), []
    while left:
        part, waiting = set(), [min(left)]
        while waiting:
            width = waiting.pop()
            if width in left:
                left.discard(width)
                part.add(width)
                waiting += sorted(neighbors[width] & left)
        parts.append(part)
    return parts
