"""One connection of a device, or of somebody who may be one."""

from __future__ import annotations

import ssl
from typing import Self

import anyio

from flower_ist.deploy.gateway.http import BadRequestError, HttpConnection
from flower_ist.deploy.gateway.ledger import HANDSHAKES, WAITING, Account, Ledger
from flower_ist.deploy.gateway.line import Line
from flower_ist.deploy.gateway.nodes import Node
from flower_ist.deploy.gateway.strangers import Strangers, Visit

MAX_LINES_OF_A_NODE = 32


class Device:
    """A connection after its TLS handshake.

    Attributes:
        connection: speaks HTTP.
        account: counts its bytes.
    """

    def __init__(self, line: Line, ledger: Ledger, strangers: Strangers, visit: Visit) -> None:
        self.account = Account(ledger, line)
        self._line = line
        self._strangers, self._visit = strangers, visit
        self._owner: Node | None = None

    async def shake_hands(self, context: ssl.SSLContext) -> Self:
        """Agree on keys; nothing else may happen before."""
        self.connection = HttpConnection(await self._line.secured(context))
        self.account.note(HANDSHAKES)
        return self

    def has_signed(self) -> None:
        """A request on this connection has a valid signature."""
        self._strangers.signed(self._visit)

    def belongs_to(self, node: Node) -> None:
        """The SuperLink has accepted a call on this connection.

        Raises:
            BadRequestError: the node has too many connections.
        """
        if self._owner is None:
            if node.lines >= MAX_LINES_OF_A_NODE:
                raise BadRequestError(503, "There are too many connections.")
            self._owner = node
            node.lines += 1
            self.account.node = str(node.node_id)
            self._strangers.known(self._visit)

    async def refuse(self, error: BadRequestError) -> None:
        """Answer to what may not be read, after which the connection ends."""
        await self.connection.refuse(error)
        if self._owner is None:
            await self.connection.drain(64 * 1024, 1.0)
        else:
            await self.connection.drain(8 * 2**20, 300.0)
        self.account.note(WAITING)

    async def close(self) -> None:
        """Close the connection and the books on it."""
        if self._owner is not None:
            self._owner.lines -= 1
        self.account.close()
        await anyio.aclose_forcefully(self._line)
