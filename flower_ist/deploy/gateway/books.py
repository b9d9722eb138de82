"""An address on the loopback interface that tells what devices have paid, as JSON."""

from __future__ import annotations

from contextlib import suppress

import anyio
from anyio.abc import SocketStream

from flower_ist.deploy.gateway.http import BadRequestError, HttpConnection
from flower_ist.deploy.gateway.ledger import Ledger


async def serve_books(ledger: Ledger, stream: SocketStream) -> None:
    """Answer ``GET /bytes`` on one connection, to its end."""
    async with stream:
        connection = HttpConnection(stream)
        with suppress(
            anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError, BadRequestError
        ):
            request = await connection.next_request()
            if request is None:
                return
            await connection.body(request.length)
            if (request.method, request.path) != ("GET", "/bytes"):
                await connection.respond(404, b"There is GET /bytes.", {})
                return
            content = ledger.text().encode()
            await connection.respond(200, content, {b"content-type": b"application/json"})
