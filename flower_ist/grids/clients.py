"""Who the clients are: one query round that asks each for its name and facts about its data.

Flower's node ids are random per run, and a server knows no partition ids. A client that answers
``@app.query()`` gives a stable name. A client that does not answer it (any ClientApp without a
query function) is named after its node id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from flwr.app import ConfigRecordValues, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from flower_ist.errors import FlowerIstError
from flower_ist.grids.names import NameBook
from flower_ist.wire._flwr import NodeInfo
from flower_ist.wire.protocol import (
    EXAMPLES_KEY,
    FACTS_RECORD,
    LIFE_AFTER_TIMEOUT,
    MAX_EXAMPLES,
    SHARD_KEY,
)
from flower_ist.wire.records import configs_in
from flower_ist.wire.reported import (
    MAX_METRICS,
    client_name,
    client_text,
    finite,
    is_superlink_error,
    last_line,
    metric_record,
)

# Seconds from a node's unanswered query to the next one: the first time, and at most.
_FIRST_WAIT, _LONGEST_WAIT = 60.0, 3600.0
_LONGEST_SHARD = 64
# All nodes, and those that were admitted, with room for two more such steps of a chain.
_LISTS_KEPT = 4
# Seconds after which the SuperLink is asked again who was heard of: a third of a heartbeat.
_NAMES_FRESH = 10.0

_log = logging.getLogger("flwr")


class TooFewClientsError(FlowerIstError):
    """Fewer clients are connected than the settings ask for."""


@dataclass(frozen=True)
class Client:
    """One client: its node id in this run, its stable name, and what it reported about its data.

    ``problem`` says why it could not answer and is empty if it did; ``silent`` is true if there was
    no reply at all; ``order`` is its name's, in the order in which names were told.
    """

    node_id: int
    name: str
    facts: Mapping[str, ConfigRecordValues] = field(default_factory=dict)
    problem: str = ""
    silent: bool = False
    order: int = 0


def _question(node_id: int, life: float) -> Message:
    """Return a query that expires if it is not delivered within ``life`` seconds."""
    return Message(RecordDict(), dst_node_id=node_id, message_type=MessageType.QUERY, ttl=life)


class ClientRegistry:
    """The clients known so far. Each node is queried when it is first needed.

    A node that could not answer is queried again after a minute, and the interval doubles each
    time, up to an hour. Nothing waits for these answers: they are fetched when the registry is
    next used. So a device that started slowly or was repaired can join a running training, and a
    device that never answers delays nobody.

    A name belongs to the node that told it first (:mod:`flower_ist.grids.names`). A SuperNode that
    is restarted has a new node id in Flower, unless its key is registered. Here it gets its
    client's name back, and everything that depends on the name, as soon as its old node is gone.

    Args:
        query_timeout: seconds to wait for answers.
        names: of the run that goes on; None for a new one.
    """

    def __init__(self, query_timeout: float = 60.0, names: NameBook | None = None) -> None:
        self.query_timeout = query_timeout
        self.names = names or NameBook()
        self._known: dict[int, Client] = {}
        self._told: dict[int, str | None] = {}
        self._due: dict[int, float] = {}
        self._wait: dict[int, float] = {}
        self._pending: dict[str, int] = {}
        # What meet() returned for some nodes since the last answer or change of a name.
        self._met: dict[tuple[int, ...], list[Client]] = {}
        self._named_at = 0.0
        self._noted: set[int] = set()
        self._numbers: dict[str, list[float]] = {}

    def meet(self, grid: Grid, node_ids: Iterable[int]) -> list[Client]:
        """Return the clients of connected nodes, sorted by name; query those not yet known.

        As long as nothing changes, the same nodes give the same list, which nobody may change.
        """
        nodes = tuple(node_ids)
        if nodes not in self._met and (strangers := [n for n in nodes if n not in self._known]):
            self._ask(grid, strangers)
        self._ask_again(grid, nodes)
        met, now = self._met.get(nodes), time.monotonic()
        if met is not None and now < self._named_at + _NAMES_FRESH:
            return met
        self._named_at = now
        if self._name(grid, nodes):
            self._met = {}
        elif met is not None:
            return met
        met = sorted((self._known[n] for n in nodes), key=lambda c: (c.name, c.node_id))
        self._met = {**self._met, nodes: met} if len(self._met) < _LISTS_KEPT else {nodes: met}
        return met

    def name(self, node_id: int) -> str:
        """Return a node's client name, for logs."""
        return self._known[node_id].name if node_id in self._known else f"node-{node_id}"

    def told_name(self, node_id: int) -> str:
        """Return the name that a node's client told, which may be another node's."""
        return self._told.get(node_id) or f"node-{node_id}"

    def facts(self, node_id: int) -> Mapping[str, ConfigRecordValues]:
        """Return what a node's client reported about its data; empty if it was not queried."""
        return self._known[node_id].facts if node_id in self._known else {}

    def shard(self, node_id: int) -> str:
        """Return what a node's client calls its data, or an empty text: it changes as they do."""
        told = self.facts(node_id).get(SHARD_KEY)
        return client_text(told, _LONGEST_SHARD) if isinstance(told, str) else ""

    def renew(self, reply: Message) -> Client | None:
        """Take over what a client tells anew in a reply, and return the client if it does.

        It does so when its data have changed. A client that tells more examples than before without
        that is asked again: the reply that said so was lost. Its name stays.
        """
        node_id = reply.metadata.src_node_id
        known = self._known.get(node_id)
        if known is None or known.problem or not reply.has_content():
            return None
        told = configs_in(reply.content).get(FACTS_RECORD)
        if told is not None:
            self._met, self._numbers = {}, {}
            self._known[node_id] = replace(known, facts=dict(islice(told.items(), MAX_METRICS)))
            self._noted.add(node_id)
            return self._known[node_id]
        metrics = metric_record(reply.content, EXAMPLES_KEY)
        examples = None if metrics is None else finite(metrics[EXAMPLES_KEY])
        before = finite(known.facts.get(EXAMPLES_KEY))
        if examples is not None and before is not None and examples > before:
            self._due.setdefault(node_id, time.monotonic())
        return None

    def noted_since(self) -> set[int]:
        """Return the nodes whose names or facts are others than when this was last called."""
        noted, self._noted = self._noted, set()
        return noted

    def own_word(self, node_id: int, fact: str) -> float:
        """Return the number of examples that a node's client told as this fact, or the most."""
        told = finite(self.facts(node_id).get(fact))
        return MAX_EXAMPLES if told is None else min(told, MAX_EXAMPLES)

    def numbers(self, fact: str) -> list[float]:
        """Return what clients told as this fact, each a possible number of examples.

        Until the next answer it is the same list, which nobody may change.
        """
        if fact not in self._numbers:
            told = (finite(client.facts.get(fact)) for client in self._known.values())
            self._numbers[fact] = [
                number for number in told if number and 1 <= number <= MAX_EXAMPLES
            ]
        return self._numbers[fact]

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

    def _ask_again(self, grid: Grid, node_ids: Iterable[int]) -> None:
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
        self._met, self._numbers = {}, {}
        self._noted.add(node_id)
        self._told[node_id] = client_name(answer) if answer is not None else None
        facts: dict[str, ConfigRecordValues] = {}
        if answer is not None and answer.has_content():
            for config in configs_in(answer.content).values():
                facts.update(islice(config.items(), MAX_METRICS - len(facts)))
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
        wait = self._wait.get(node_id, _FIRST_WAIT)
        self._due[node_id] = time.monotonic() + wait
        self._wait[node_id] = min(2 * wait, _LONGEST_WAIT)
        return wait

    def _name(self, grid: Grid, node_ids: Sequence[int]) -> bool:
        """Give each connected node a name that no other has; return whether any has changed."""
        there = {info.node_id: info for info in grid.get_nodes()}
        unlisted = {n: NodeInfo(node_id=n) for n in node_ids if n not in there}
        all_nodes = unlisted | there
        told = {node_id: self._told[node_id] for node_id in node_ids}
        changed = False
        for node_id, (name, order) in self.names.assign(list(all_nodes.values()), told).items():
            client = self._known[node_id]
            if (client.name, client.order) != (name, order):
                self._known[node_id] = replace(client, name=name, order=order)
                self._noted.add(node_id)
                changed = True
        return changed


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
