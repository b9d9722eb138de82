"""Which node each client's name belongs to.

A name is what a client says of itself, and much hangs on it: its seat and its share of the model,
its turns, its faults, its part in the statistics, and its data when a run goes on. So a name
belongs to the node that told it first, as long as that node is there and over a resume. Another
node that tells it gets a name with its own node id behind: whoever lies about its name, or was
robbed of it, is a client like any other, and nobody else notices.

The SuperLink lets a node act under its id only with that id's key. An id whose key is registered
stays the same for good; others get a new one with each start, and so do all nodes of a simulation.
Both follow one rule, with the SuperLink's own times: a name passes on only if its node is gone, and
only to a node that was registered after the last sign of life of the former. That is a node that
was started again under a new id, and none that waited beside it for its turn.

Over a resume, a node that was there at the last look counts as heard of until then. So nothing is
kept anew of those that stay.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from flower_ist.tracked import TrackedDict
from flower_ist.wire._flwr import HEARTBEAT_PATIENCE, NodeInfo
from flower_ist.wire.reported import is_name

_log = logging.getLogger("flwr")


class Holder(NamedTuple):
    """The node that a name belongs to.

    Attributes:
        node_id: its id in Flower.
        registered: when its id was made, in the SuperLink's seconds since 1970; where a grid does
            not say, the number of meetings with new nodes before the one in which it came.
        alive: when it was last heard of, in the same terms; of one that is here, what was known
            when it came.
        makeshift: whether the name was made of its node id.
        order: of this name among all names, from 0 in the order in which they were told.
        here: whether it was there at the last look.
    """

    node_id: int
    registered: float
    alive: float
    makeshift: bool = False
    order: int = 0
    here: bool = True


class NameBook:
    """Names, and the nodes that they belong to."""

    def __init__(self) -> None:
        self._holders: TrackedDict[Holder] = TrackedDict()
        self._meetings = 0
        self._looked = 0.0  # the last sign of life that any node had given by the last look
        self._nodes: dict[int, Holder] = {}  # met in this process
        self._names: dict[int, str] = {}
        # (node id, registered) -> its name in the run that goes on
        self._before: dict[tuple[int, float], str] = {}
        # What assign() was last asked, and what it answered.
        self._asked: tuple[dict[int, str], dict[int, str | None]] | None = None
        self._found: dict[int, tuple[str, int]] = {}

    def assign(
        self, nodes: Sequence[NodeInfo], told: Mapping[int, str | None]
    ) -> dict[int, tuple[str, int]]:
        """Return name and order of the nodes that told something, no two names alike.

        Args:
            nodes: all that are connected.
            told: node id -> the name that its client told; None if it told none.
        """
        self._look_at(nodes)
        asked = {info.node_id: info.name for info in nodes}, dict(told)
        if asked == self._asked:  # who is there decides, and who told what
            return self._found
        connected = set(asked[0])
        found = {}
        for info in sorted(nodes, key=self._rank):
            if (node_id := info.node_id) in told:
                # What the operator wrote at its registration goes before what the client says.
                wanted = info.name if is_name(info.name) else told[node_id]
                name = self._name(self._nodes[node_id], wanted, connected)
                self._names[node_id] = name
                self._note(node_id, here=True)
                found[node_id] = (name, self._holders[name].order)
        self._asked, self._found = asked, found
        return found

    def state(self) -> dict[str, Any]:
        """Return what must be kept over a resume, as JSON values and a tracked dict of them."""
        return {"holders": self._holders, "meetings": self._meetings, "looked": self._looked}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._meetings, self._looked = state["meetings"], state["looked"]
        self._holders, self._before = TrackedDict(), {}
        for name, fields in state["holders"].items():
            holder = Holder(*fields)
            alive = self._looked if holder.here else holder.alive
            self._holders[name] = holder._replace(alive=alive, here=False)
            if not holder.makeshift:
                self._before[holder.node_id, holder.registered] = name
        self._asked = None

    def _look_at(self, nodes: Sequence[NodeInfo]) -> None:
        """Note who is there, who has gone, and when each was last heard of."""
        there = {info.node_id: info for info in nodes}
        for node_id in self._names.keys() - there.keys():
            self._note(node_id, here=False)
        met_before = len(self._nodes)
        for node_id, info in there.items():
            known = self._nodes.get(node_id)
            registered = _registered(info, self._meetings) if known is None else known.registered
            self._nodes[node_id] = Holder(node_id, registered, max(registered, _heard(info)))
        self._looked = max((self._nodes[n].alive for n in there), default=self._looked)
        self._meetings += len(self._nodes) > met_before

    def _note(self, node_id: int, *, here: bool) -> None:
        """Note whether a node that has a name has come or gone."""
        name, node = self._names[node_id], self._nodes[node_id]
        if self._is_holder(name, node) and self._holders[name].here != here:
            self._holders[name] = self._holders[name]._replace(alive=node.alive, here=here)

    def _rank(self, info: NodeInfo) -> tuple[bool, float, int]:
        """Names are given to nodes that the operator named, then in the order of registration."""
        return not info.name, self._nodes[info.node_id].registered, info.node_id

    def _name(self, node: Holder, wanted: str | None, connected: set[int]) -> str:
        before = self._names.get(node.node_id) or self._name_before(node, wanted)
        if self._is_holder(before, node) and not self._holders[before].makeshift:
            return before
        name = wanted or f"node-{node.node_id}"
        while not self._is_free(name, node, connected):
            name = f"{name}-{node.node_id}"
        if name != before:
            makeshift = name != wanted
            order = self._holders[name].order if name in self._holders else len(self._holders)
            self._holders[name] = node._replace(makeshift=makeshift, order=order)
            if makeshift and wanted:
                _log.warning("%r is another node's name: a node goes by %s", wanted, name)
        return name

    def _name_before(self, node: Holder, wanted: str | None) -> str:
        """Return what this very node, with the same key, was called in the run that goes on."""
        name = self._before.get((node.node_id, node.registered), "")
        if not self._is_holder(name, node):
            return ""
        if wanted not in (None, name):
            _log.warning("%s now calls itself %r: it stays %s", name, wanted, name)
        return name

    def _is_holder(self, name: str, node: Holder) -> bool:
        return name in self._holders and self._holders[name].node_id == node.node_id

    def _is_free(self, name: str, node: Holder, connected: set[int]) -> bool:
        holder = self._holders.get(name)
        if holder is None or holder.node_id == node.node_id:
            return True
        alive = self._nodes.get(holder.node_id, holder).alive
        return holder.node_id not in connected and node.registered > alive


def _registered(info: NodeInfo, first_met: float) -> float:
    if not info.registered_at:
        return first_met
    return datetime.fromisoformat(info.registered_at).timestamp()


def _heard(info: NodeInfo) -> float:
    heard = info.online_until - HEARTBEAT_PATIENCE * info.heartbeat_interval
    # A simulation's nodes send no heartbeats: their interval is as good as infinite.
    return heard if math.isfinite(heard) else 0.0
