"""Who the clients are: one query round that asks each for its name and its data's facts.

Flower's node ids are random per run, and a server knows no partition ids. A client that answers
``@app.query()`` gives a stable name; a client that does not (any ClientApp without a query
function) is named after its node id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecordValues, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from flower_ist.gridwrapper import GridWrapper

CLIENT_NAME_KEY = "client-name"
FACTS_RECORD = "facts"
MAX_NAME_LENGTH = 80

_log = logging.getLogger("flwr")


class TooFewClientsError(RuntimeError):
    """Fewer clients are connected than the settings ask for."""


@dataclass(frozen=True)
class Client:
    """One client: its node id in this run, its stable name, and what it said of its data.

    ``problem`` is why it could not answer, empty if it did; ``silent`` that nothing came at all.
    """

    node_id: int
    name: str
    facts: Mapping[str, ConfigRecordValues] = field(default_factory=dict)
    problem: str = ""
    silent: bool = False


def client_name(reply: Message) -> str | None:
    """Return the name that a query reply gives, or None."""
    if not reply.has_content():
        return None
    for config in reply.content.config_records.values():
        name = config.get(CLIENT_NAME_KEY)
        if isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME_LENGTH:
            return name
    return None


class Roster:
    """The clients met so far. Each node is asked once, when it is first needed."""

    def __init__(self, query_timeout: float = 60.0) -> None:
        self.query_timeout = query_timeout
        self._known: dict[int, Client] = {}

    def meet(self, grid: Grid, node_ids: Iterable[int]) -> list[Client]:
        """Return the clients of these nodes, sorted by name; ask those not met before."""
        node_ids = list(node_ids)
        strangers = [node_id for node_id in node_ids if node_id not in self._known]
        if strangers:
            self._ask(grid, strangers)
        return sorted((self._known[n] for n in node_ids), key=lambda c: (c.name, c.node_id))

    def name(self, node_id: int) -> str:
        """Return a node's client name, for logs."""
        return self._known[node_id].name if node_id in self._known else f"node-{node_id}"

    def facts(self, node_id: int) -> Mapping[str, ConfigRecordValues]:
        """Return what a node's client said of its data; nothing if it was not asked."""
        return self._known[node_id].facts if node_id in self._known else {}

    def _ask(self, grid: Grid, node_ids: list[int]) -> None:
        questions = [
            Message(
                RecordDict(),
                dst_node_id=node_id,
                message_type=MessageType.QUERY,
            )
            for node_id in node_ids
        ]
        answers: dict[int, Message] = {}
        for reply in grid.send_and_receive(questions, timeout=self.query_timeout):
            answers.setdefault(reply.metadata.src_node_id, reply)
        taken = {client.name for client in self._known.values()}
        for node_id in sorted(node_ids):
            answer = answers.get(node_id)
            name = client_name(answer) if answer is not None else None
            while name is None or name in taken:
                # Two devices with copies of one shard are two clients all the same.
                name = f"{name or 'node'}-{node_id}"
            taken.add(name)
            facts: dict[str, ConfigRecordValues] = {}
            if answer is not None and answer.has_content():
                for config in answer.content.config_records.values():
                    facts.update(config)
            self._known[node_id] = Client(
                node_id, name, facts, _problem(answer), silent=answer is None
            )


class AdmittingGrid(GridWrapper):
    """A Grid that shows a strategy only the clients that a check lets in.

    It works for any strategy, unchanged, and for clients that connect later. Who is left out is
    logged once, with the reason.

    Args:
        grid: the grid to wrap.
        roster: asks the clients for their facts.
        check: returns why a client must be left out, or an empty text.
    """

    def __init__(self, grid: Grid, roster: Roster, check: Callable[[Client], str]) -> None:
        super().__init__(grid)
        self._roster = roster
        self._check = check
        self._told: set[int] = set()

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are let in."""
        admitted = []
        for client in self._roster.meet(self._grid, self._grid.get_node_ids()):
            reason = self._check(client)
            if not reason:
                admitted.append(client.node_id)
            elif client.node_id not in self._told:
                self._told.add(client.node_id)
                _log.warning("%s is left out of this run: %s", client.name, reason)
        return admitted


def client_text(text: str, limit: int = 300) -> str:
    """Return a text that a client wrote so that it can go into a log: printable and short."""
    short = text[:limit] + ("..." if len(text) > limit else "")
    return "".join(character if character.isprintable() else " " for character in short)


def last_line(reason: str | None) -> str:
    """Return the last line of a client's traceback: the one that names the error."""
    # The end of a long text is enough to find its last line.
    lines = [line.strip() for line in (reason or "")[-10_000:].splitlines() if line.strip(" '>")]
    return client_text(lines[-1] if lines else "no reason given").rstrip(".")


def _problem(answer: Message | None) -> str:
    if answer is None:
        return "it gave no answer in time"
    return last_line(answer.error.reason) if answer.has_error() else ""


def await_nodes(grid: Grid, needed: int, timeout: float) -> list[int]:
    """Wait until enough nodes are connected and return all their ids.

    Args:
        grid: to ask for node ids.
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
