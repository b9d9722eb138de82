"""Let devices in: one task for each connection, from its first byte to its last."""

from __future__ import annotations

import logging
import ssl

import anyio
import h11
from anyio.abc import SocketStream

from flower_ist.deploy.gateway.calls import Calls
from flower_ist.deploy.gateway.device import Device
from flower_ist.deploy.gateway.http import BadRequestError
from flower_ist.deploy.gateway.ledger import Ledger
from flower_ist.deploy.gateway.line import Line
from flower_ist.deploy.gateway.strangers import Strangers

# How connections end: the other side has left, was too slow, or does not speak TLS or HTTP.
_ENDS = (
    *(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream),
    *(TimeoutError, OSError, h11.LocalProtocolError),  # an OSError is also TLS that fails
)

_log = logging.getLogger("gateway")


class Door:
    """The address that devices reach.

    Args:
        context: the server's certificate and key.
        calls: answers what devices ask.
        ledger: counts their bytes.
    """

    def __init__(self, context: ssl.SSLContext, calls: Calls, ledger: Ledger) -> None:
        self._context = context
        self._calls = calls
        self._ledger = ledger
        self._strangers = Strangers()

    async def serve(self, stream: SocketStream) -> None:
        """Serve one connection to its end, whatever happens on it."""
        try:
            line = Line(stream)
            with (
                anyio.CancelScope() as scope,
                self._strangers.visit(line.peer, scope) as visit,
            ):
                device = Device(line, self._ledger, self._strangers, visit)
                try:
                    await self._serve(await device.shake_hands(self._context))
                finally:
                    await device.close()
        except* _ENDS:
            pass
        except* Exception:
            _log.exception("A connection ended with an error of the gateway's own.")

    async def _serve(self, device: Device) -> None:
        try:
            while (request := await device.connection.next_request()) is not None:
                if not await self._calls.serve(request, device):
                    return
        except BadRequestError as error:
            await device.refuse(error)
