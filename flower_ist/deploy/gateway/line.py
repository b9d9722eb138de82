"""A device's connection: every byte that crosses it is counted, below TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream

_UNACKNOWLEDGED_MS = 30_000
# Little at once during the handshake: what follows it in the same read is counted as part of it.
_HANDSHAKE_CHUNK, _CHUNK = 256, 16384


class Line(ByteStream):
    """A TCP connection that counts its bytes.

    Attributes:
        peer: the other side's IP address.
        received, sent: bytes so far, TLS included.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self.received = 0
        self.sent = 0
        self._chunk = _HANDSHAKE_CHUNK
        self.peer = str(stream.extra(SocketAttribute.remote_address)[0])
        raw = stream.extra(SocketAttribute.raw_socket)
        # A device that is gone without a word: what is sent to it must fail, not pile up.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            with suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)

    async def secured(self, context: ssl.SSLContext) -> TLSStream:
        """Return the stream within, after a TLS handshake."""
        stream = await TLSStream.wrap(
            self, server_side=True, ssl_context=context, standard_compatible=False
        )
        self._chunk = _CHUNK
        return stream

    async def receive(self, max_bytes: int = _CHUNK) -> bytes:
        """Return some bytes; EndOfStream at the end."""
        data = await self._stream.receive(min(max_bytes, self._chunk))
        self.received += len(data)
        return data

    async def send(self, item: bytes) -> None:
        """Send bytes and wait until the system has taken them."""
        self.sent += len(item)
        await self._stream.send(item)

    async def send_eof(self) -> None:
        """Tell the other side that nothing follows."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket's attributes."""
        return self._stream.extra_attributes
