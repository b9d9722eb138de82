"""Who the clients are: one query round that asks each for its name and facts about its data.

Flower's node ids are random per run, and a server knows no partition ids. A client that answers
``@app.query()`` gives a stable name. A client that does not answer it (any ClientApp without a
query function) is named after its node id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import ConfigRecordValues, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from flower_ist.errors import FlowerIstError
from flower_ist.wire.protocol import LIFE_AFTER_TIMEOUT
from flower_ist.wire.records import configs_in
from flower_ist.wire.reported import client_name, is_superlink_error, last_line

_LONGEST_WAIT = 3600.0
# All nodes, and those that were admitted, with room for two more such steps of a chain.
_LISTS_KEPT = 4

_log = logging.getLogger("flwr")


class TooFewClientsError(FlowerIstError):
    """Fewer clients are connected than the settings ask for."""


@dataclass(frozen=True)
class Client:
    """One client: its node id in this run, its stable name, and what it reported about its data.

    ``problem`` says why it could not answer and is empty if it did; ``silent`` is true if there was
    no reply at all.
    """

    node_id: int
    name: str
    facts: Mapping[str, ConfigRecordValues] = field(default_factory=dict)
    problem: str = ""
    silent: bool = False


def _question(node_id: int, life: float) -> Message:
    """Return a query that expires if it is not delivered within ``life`` seconds."""
    return Message(RecordDict(), dst_node_id=node_id, message_type=MessageType.QUERY, ttl=life)


class ClientRegistry:
    """The clients known so far. Each node is queried when it is first needed.

    A node that could not answer is queried again after ``retry_seconds``, and the interval doubles
    each time, up to an hour. Nothing waits for these answers: they are fetched when the registry is
    next used. So a device that started slowly or was repaired can join a running training, and a
    device that never answers delays nobody.

    A name belongs to a node as long as the node is connected. A SuperNode that is restarted has a
    new node id in Flower, unless its key is registered. Here it gets its client's name back, and
    everything that depends on the name, as soon as its old node is gone.

    Args:
        query_timeout: seconds to wait for answers.
        retry_seconds: from a node's first unanswered query to the second query.
    """

    def __init__(self, query_timeout: float = 60.0, retry_seconds: float = 60.0) -> None:
        self.query_timeout = query_timeout
        self.retry_seconds = retry_seconds
        self._known: dict[int, Client] = {}
        self._told_names: dict[int, str] = {}
        self._holders: dict[str, int] = {}
        self._due: dict[int, float] = {}
        self._wait: dict[int, float] = {}
        self._pending: dict[str, int] = {}
        # What meet() returned for some nodes since the last answer or change of a name.
        self._met: dict[tuple[int, ...], list[Client]] = {}

    def meet(self, grid: Grid, node_ids: Iterable[int]) -> list[Client]:
        """Return the clients of connected nodes, sorted by name; query those not yet known.

        As long as nothing changes, the same nodes give the same list, which nobody may change.
        """
        node_ids = list(node_ids)
        strangers = [node_id for node_id in node_ids if node_id not in self._known]
        if strangers:
            self._ask(grid, strangers)
        self._ask_again(grid, node_ids)
        nodes = tuple(node_ids)
        if nodes in self._met:
            return self._met[nodes]
        holders = dict(self._holders)
        self._name(node_ids)
        if holders != self._holders:
            self._met = {}
        met = sorted((self._known[n] for n in node_ids), key=lambda c: (c.name, c.node_id))
        self._met = {**self._met, nodes: met} if len(self._met) < _LISTS_KEPT else {nodes: met}
        return met

    def name(self, node_id: int) -> str:
        """Return a node's client name, for logs."""
        return self._known[node_id].name if node_id in self._known else f"node-{node_id}"

    def told_name(self, node_id: int) -> str:
        """Return the name that a node's client reported, which another node's client may share.

        A SuperNode that restarts before its old node is found to be gone shares that node's name.
        """
        return self._told_names.get(node_id, f"node-{node_id}")

    def facts(self, node_id: int) -> Mapping[str, ConfigRecordValues]:
        """Return what a node's client reported about its data; empty if it was not queried."""
        return self._known[node_id].facts if node_id in self._known else {}

    def _ask(self, grid: Grid, node_ids: list[int]) -> None:
        # A query that nobody waits for anymore is not delivered. It lives a little longer than the
        # wait, so that it cannot expire while its answer is being fetched.
        life = self.query_timeout + LIFE_AFTER_TIMEOUT
        questions = [_question(node_id, life) for node_id in node_ids]
        answers: dict[int, Message] = {}
        for reply in grid.send_and_receive(questions, timeout=self.query_timeout):
            answers.setdefault(reply.metadata.src_node_id, reply)
        for node_id in node_ids:
            self._note(node_id, answers.get(node_id))

    def _ask_again(self, grid: Grid, node_ids: list[int]) -> None:
        """Fetch the answers to earlier repeated queries, and send those that are due."""
        if self._pending:
            for reply in grid.pull_messages(list(self._pending)):
                asked = self._pending.pop(reply.metadata.reply_to_message_id, None)
                if asked is not None:
                    self._note(asked, reply)
        now = time.monotonic()
        due = {node_id for node_id, when in self._due.items() if when <= now}
        due = due and due.intersection(node_ids)
        if not due:
            return
        self._pending = {i: node_id for i, node_id in self._pending.items() if node_id not in due}
        questions = [_question(node_id, self._schedule(node_id)) for node_id in sorted(due)]
        grid.push_messages(questions)
        for question in questions:
            self._pending[question.metadata.message_id] = question.metadata.dst_node_id

    def _note(self, node_id: int, answer: Message | None) -> None:
        """Record a node's answer."""
        self._met = {}
        told = client_name(answer) if answer is not None else None
        self._told_names[node_id] = told or f"node-{node_id}"
        facts: dict[str, ConfigRecordValues] = {}
        if answer is not None and answer.has_content():
            for config in configs_in(answer.content).values():
                facts.update(config)
        silent = answer is None or is_superlink_error(answer)
        problem = _problem(answer)
        self._known[node_id] = Client(node_id, self.name(node_id), facts, problem, silent=silent)
        if not problem:
            self._due.pop(node_id, None)
            self._wait.pop(node_id, None)
        elif node_id not in self._due:
            self._schedule(node_id)

    def _schedule(self, node_id: int) -> float:
        """Set when a node is queried next, and return the seconds until then."""
        wait = self._wait.get(node_id, self.retry_seconds)
        self._due[node_id] = time.monotonic() + wait
        self._wait[node_id] = min(2 * wait, _LONGEST_WAIT)
        return wait

    def _name(self, node_ids: list[int]) -> None:
        """Give each connected node a name that no other connected node has."""
        connected = set(node_ids)
        for node_id in sorted(node_ids):
            name = self._told_names[node_id]
            while (holder := self._holders.get(name, node_id)) != node_id and holder in connected:
                # Two devices with copies of one shard are still two clients.
                name = f"{name}-{node_id}"
            self._holders[name] = node_id
            self._known[node_id] = replace(self._known[node_id], name=name)


def _problem(answer: Message | None) -> str:
    if answer is None:
        return "it gave no answer in time"
    return last_line(answer.error.reason) if answer.has_error() else ""


def await_nodes(grid: Grid, needed: int, timeout: float) -> list[int]:
    """Wait until enough nodes are connected and return all their ids.

    Args:
        grid: gives the node ids.
        needed: number of nodes, at least 1.
        timeout: seconds to wait.

    Raises:
        TooFewClientsError: too few nodes were connected when the time was up.
    """
    deadline = time.monotonic() + timeout
    while len(node_ids := list(grid.get_node_ids())) < needed:
        if time.monotonic() >= deadline:
            raise TooFewClientsError(
                f"{needed} SuperNodes are needed, {len(node_ids)} are connected after "
                f"{timeout:.0f} s: start more, in simulation with "
                f"--federation-config 'num-supernodes={needed}'."
            )
        _log.info("Waiting for SuperNodes: %d of %d are connected.", len(node_ids), needed)
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
    return node_ids
