"""One HTTP/1.1 connection, parsed by h11, with limits and deadlines for everything.

Why no web framework: none of them can send a 1xx answer while a question waits, which is what keeps
a question open without bytes (see waiting.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import h11
from anyio.abc import ByteStream

MAX_HEAD_BYTES = 16 * 1024
MAX_HEADERS = 50
HEAD_SECONDS = 10.0
IDLE_SECONDS = 60.0
_GRACE_SECONDS = 30.0
_SLOWEST = 4096  # bytes/s; a device on a worse line than that cannot train either
_CHUNK = 64 * 1024


class BadRequestError(Exception):
    """A request that is answered with an error, after which the connection ends."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Request:
    """The head of a request.

    Attributes:
        method: such as POST.
        path: without a query.
        headers: lower-case name -> value; of repeated ones the last.
        length: bytes of its body.
    """

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    length: int


class HttpConnection:
    """The server's side of a connection."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def next_request(self) -> Request | None:
        """Return the next request's head, or None if the other side is done.

        Raises:
            BadRequestError: it is malformed or too large.
            TimeoutError: it took too long.
        """
        while (event := self._next_event()) is h11.NEED_DATA:
            begun = bool(self._h11.trailing_data[0])
            with anyio.fail_after(HEAD_SECONDS if begun else IDLE_SECONDS) as scope:
                # What dribbles in must be whole by the deadline of its first byte.
                while event is h11.NEED_DATA:
                    await self._receive()
                    if not begun:
                        begun, scope.deadline = True, anyio.current_time() + HEAD_SECONDS
                    event = self._next_event()
            break
        if not isinstance(event, h11.Request):
            return None
        if len(event.headers) > MAX_HEADERS:
            raise BadRequestError(431, "There are too many headers.")
        headers = dict(event.headers)
        if b"transfer-encoding" in headers:
            raise BadRequestError(411, "Say the request's length.")
        return Request(
            event.method.decode("ascii"),
            event.target.partition(b"?")[0].decode("ascii"),
            headers,
            int(headers.get(b"content-length", b"0")),
        )

    async def body(self, length: int) -> bytes:
        """Return the request's body.

        Raises:
            TimeoutError: it came too slowly.
        """
        if self._h11.they_are_waiting_for_100_continue:
            await self._interim(100)
        body = bytearray()
        with anyio.fail_after(_seconds_for(length)):
            while True:
                event = self._next_event()
                if event is h11.NEED_DATA:
                    await self._receive()
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return bytes(body)
                else:
                    raise BadRequestError(400, "The request has no end.")

    async def still_working(self) -> None:
        """Tell the other side to go on waiting, in 17 bytes; a client's timeout begins anew."""
        await self._interim(102)

    @asynccontextmanager
    async def while_open(self) -> AsyncIterator[None]:
        """End the block early when the other side closes the connection."""
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                await self._closed()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            yield
            tasks.cancel_scope.cancel()

    async def _closed(self) -> None:
        """Wait until the other side closes the connection."""
        while True:
            try:
                await self._receive()
            except BadRequestError:
                return
            data, ended = self._h11.trailing_data
            if ended or len(data) > MAX_HEAD_BYTES:
                return

    async def respond(self, status: int, content: bytes, headers: Mapping[bytes, bytes]) -> bool:
        """Answer, and return whether the connection can be used again.

        Raises:
            TimeoutError: the other side does not read.
        """
        unread = self._h11.their_state is not h11.DONE
        head = {**headers, b"content-length": str(len(content)).encode()}
        if unread:
            head[b"connection"] = b"close"
        answer = h11.Response(status_code=status, headers=list(head.items()))
        data = self._h11.send(answer) or b""
        data += self._h11.send(h11.Data(content)) or b""
        data += self._h11.send(h11.EndOfMessage()) or b""
        with anyio.fail_after(_seconds_for(len(data))):
            for start in range(0, len(data), _CHUNK):
                await self._stream.send(data[start : start + _CHUNK])
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    async def refuse(self, error: BadRequestError) -> None:
        """Answer to what cannot be read any further."""
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.respond(error.status, str(error).encode(), {b"connection": b"close"})

    async def drain(self, size: int, seconds: float) -> None:
        """Read and forget what was being sent when it was refused.

        Closed at once, the connection would be reset and the refusal lost: a SuperNode would send
        the same again, for ever.
        """
        with anyio.move_on_after(seconds):
            while size > 0 and (data := await self._stream.receive(16384)):
                size -= len(data)

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as err:
            raise BadRequestError(err.error_status_hint, "This is not HTTP/1.1.") from err

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive(16384)
        except anyio.EndOfStream:
            data = b""
        try:
            self._h11.receive_data(data)
        except RuntimeError:  # data after the end
            raise BadRequestError(400, "The connection was closed.") from None

    async def _interim(self, status: int) -> None:
        data = self._h11.send(h11.InformationalResponse(status_code=status, headers=[]))
        with anyio.fail_after(_GRACE_SECONDS):
            await self._stream.send(data or b"")


def _seconds_for(size: int) -> float:
    """Return how long ``size`` bytes may take."""
    return _GRACE_SECONDS + size / _SLOWEST
