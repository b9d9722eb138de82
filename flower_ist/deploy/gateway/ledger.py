"""What each node's line has carried, in bytes, by kind and direction.

Kinds: ``bundle`` (the app, fetched for a run), ``messages`` (models, statistics and replies),
``waiting`` (questions for work that brought none, heartbeats) and ``handshakes`` (TLS). Of a
connection that no known node has used everything counts to the strangers.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from flower_ist.deploy.gateway.line import Line
from flower_ist.files import NotWrittenError, write_file

BUNDLE, MESSAGES, WAITING, HANDSHAKES = KINDS = ("bundle", "messages", "waiting", "handshakes")
KIND_OF_CALL = {
    "get-run": BUNDLE,
    "get-fab": BUNDLE,
    "pull-object": MESSAGES,
    "push-object": MESSAGES,
    "push-messages": MESSAGES,
    "confirm-message-received": MESSAGES,
}
"""Of a question for messages only the answer shows the kind; all other calls are waiting."""

_log = logging.getLogger("gateway")
Counts = dict[str, list[int]]


class Account:
    """What one line has carried and what has been written down of it.

    Attributes:
        node: node id as text, once it is known.
    """

    def __init__(self, ledger: Ledger, line: Line) -> None:
        self.node = ""
        self._ledger, self._line = ledger, line
        self._down = self._up = 0
        self._unassigned: list[tuple[str, int, int]] = []

    def note(self, kind: str) -> None:
        """Everything since the last note was of this kind."""
        down, up = self._line.sent - self._down, self._line.received - self._up
        self._down, self._up = self._line.sent, self._line.received
        self._unassigned.append((kind, down, up))
        if self.node:
            self._write_down()

    def close(self) -> None:
        """The line is closed."""
        self.note(HANDSHAKES)
        self._write_down()

    def _write_down(self) -> None:
        for kind, down, up in self._unassigned:
            self._ledger.add(self.node, kind, down, up)
        self._unassigned.clear()


class Ledger:
    """All nodes' bytes since the deployment began, kept in a file.

    Args:
        file: where they are kept; None: nowhere.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._nodes: dict[str, Counts] = {}
        self._strangers = [0, 0]
        self._written = ""
        if file is not None and file.exists():
            content = json.loads(file.read_bytes())
            self._nodes, self._strangers = content["nodes"], content["strangers"]

    def add(self, node: str, kind: str, down: int, up: int) -> None:
        """Add bytes to and from a node; an empty name stands for the strangers."""
        empty = {name: [0, 0] for name in KINDS}
        counts = self._nodes.setdefault(node, empty)[kind] if node else self._strangers
        counts[0] += down
        counts[1] += up

    def content(self) -> dict[str, Any]:
        """Return node id -> kind -> [bytes to the node, bytes from it], and the strangers'."""
        return {"nodes": self._nodes, "strangers": self._strangers}

    def text(self) -> str:
        """Return the same as JSON."""
        return json.dumps(self.content())

    def write(self, text: str) -> None:
        """Write a text of the ledger to its file, if it has one and the text is new."""
        if self._file is None or text == self._written:
            return
        try:
            write_file(self._file, text)
            self._written = text
        except NotWrittenError as err:  # counting goes on; the next time tries again
            _log.warning("%s", err)
