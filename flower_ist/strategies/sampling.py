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
from collections.abc import Collection, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

from flower_ist.tracked import TrackedDict


class TurnSampler:
    """Draw the clients of each round without replacement, epoch by epoch.

    In epoch e every client draws a lot that follows from ``(seed, e, its name)`` alone, and lots
    decide among those who have had e turns. So a draw depends neither on node ids nor on the order
    of the names, and a client that joins or leaves does not change the order of the others. A turn
    is counted when a client is asked, whether it then answers or not: one that always fails is
    asked as often as the others and no more.

    A client that joins late, or returns, counts as at most one turn behind: it goes before those of
    the epoch's next turn, but does not train round after round to make up for its absence.

    As long as the same clients are connected, a round looks at those that it draws and at no other.
    Only an epoch's first round lines up all.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._turns: TrackedDict[int] = TrackedDict()
        self._next_round = 1
        self._epoch = 0
        self._names: Collection[str] = ()
        self._queue: list[tuple[bytes, str]] = []  # a heap: those of them whose turn is to come
        self._lots: dict[str, bytes] = {}  # of this epoch

    def sample(self, server_round: int, names: Collection[str], count: int) -> list[str]:
        """Return who trains in this round, sorted by name.

        Rounds are drawn in order. If the first one is not round 1, as after a resume, the rounds
        before it are drawn again as if the same clients had been there: with clients that stay,
        a resumed run draws what an uninterrupted one would have. An earlier round than the last
        resets the count.

        Args:
            server_round: at least 1.
            names: of the clients that are connected, each once; of an object that was handed in
                before nobody has come or gone.
            count: how many are wanted; all of them if there are fewer.
        """
        if server_round < self._next_round:
            self.load_state({"turns": {}, "next_round": 1})
        for _ in range(self._next_round, server_round):
            self._draw(names, count)
        self._next_round = server_round + 1
        return sorted(self._draw(names, count))

    def state(self) -> dict[str, int | TrackedDict[int]]:
        """Return what must be kept from round to round."""
        return {"turns": self._turns, "next_round": self._next_round}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._turns = TrackedDict(state["turns"])
        self._next_round = int(state["next_round"])
        self._begin(max(self._turns.values(), default=1) - 1)

    def _draw(self, names: Collection[str], count: int) -> set[str]:
        if names is not self._names:
            self._names = names
            self._line_up()
        chosen: set[str] = set()
        again = []
        while len(chosen) < min(count, len(names)):
            if not self._queue:
                self._begin(self._epoch + 1)
            place = heappop(self._queue)
            if place[1] in chosen:  # it has had its last turn in this very round
                again.append(place)
            else:
                chosen.add(place[1])
                self._turns[place[1]] = self._epoch + 1
        for place in again:
            heappush(self._queue, place)
        return chosen

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._lots.clear()
        self._line_up()

    def _line_up(self) -> None:
        """Put the clients that have not had this epoch's turn in the order of their lots."""
        waiting = [name for name in self._names if self._turns.get(name, 0) <= self._epoch]
        for name in waiting:
            if name not in self._lots:
                text = f"{self.seed}/{self._epoch}/{name}"
                self._lots[name] = hashlib.blake2b(text.encode(), digest_size=8).digest()
        self._queue = [(self._lots[name], name) for name in waiting]
        heapify(self._queue)
