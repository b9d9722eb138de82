"""Who trains in a round: every client once before anyone twice.

Drawing with replacement across rounds, as Flower's own strategies do, leaves some clients out for
long: with 32 of 1,000 clients drawn a round, 0.968^31 of them, more than a third, have had no turn
after 31 rounds. Here each client's turns are counted, and those with the fewest go first. Cho et
al., "On the Convergence of Federated Averaging with Cyclic Client Participation", ICML 2023,
https://arxiv.org/abs/2302.03109, study such orders; unlike theirs, the groups of clients are drawn
anew in each epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from heapq import nsmallest
from typing import Any


class TurnSampler:
    """Draw the clients of each round without replacement, epoch by epoch.

    In epoch e every client draws a lot that follows from ``(seed, e, its name)`` alone, and lots
    decide among those who have had e turns. So a draw depends neither on node ids nor on the order
    of the names, and a client that joins or leaves does not change the order of the others. A turn
    is counted when a client is asked, whether it then answers or not: one that always fails is
    asked as often as the others and no more.

    A client that joins late, or returns, counts as at most one turn behind: it goes before those of
    the epoch's next turn, but does not train round after round to make up for its absence.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._turns: dict[str, int] = {}
        self._next_round = 1
        self._places: dict[str, tuple[int, bytes, str]] = {}

    def sample(self, server_round: int, names: Sequence[str], count: int) -> list[str]:
        """Return who trains in this round, sorted by name.

        Rounds are drawn in order. If the first one is not round 1, as after a resume, the rounds
        before it are drawn again as if the same clients had been there: with clients that stay,
        a resumed run draws what an uninterrupted one would have. An earlier round than the last
        resets the count.

        Args:
            server_round: at least 1.
            names: of the clients that are connected, each once.
            count: how many are wanted; all of them if there are fewer.
        """
        if server_round < self._next_round:
            self._turns.clear()
            self._next_round = 1
        for _ in range(self._next_round, server_round):
            self._draw(names, count)
        self._next_round = server_round + 1
        return sorted(self._draw(names, count))

    def state(self) -> dict[str, int | dict[str, int]]:
        """Return what must be kept from round to round."""
        return {"turns": dict(self._turns), "next_round": self._next_round}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._turns = dict(state["turns"])
        self._next_round = int(state["next_round"])

    def _draw(self, names: Sequence[str], count: int) -> list[str]:
        turns = self._turns
        fewest = max((turns.get(name, 0) for name in names), default=0) - 1
        for name in names:
            if turns.setdefault(name, 0) < fewest:
                turns[name] = fewest
        order = nsmallest(count, map(self._place, names))
        chosen = [name for *_, name in order]
        for name in chosen:
            turns[name] += 1
        return chosen

    def _place(self, name: str) -> tuple[int, bytes, str]:
        """Return what sorts the names; a lot is drawn once for each of a client's turns."""
        turn = self._turns[name]
        place = self._places.get(name)
        if place is None or place[0] != turn:
            text = f"{self.seed}/{turn}/{name}"
            lot = hashlib.blake2b(text.encode(), digest_size=8).digest()
            place = self._places[name] = (turn, lot, name)
        return place
