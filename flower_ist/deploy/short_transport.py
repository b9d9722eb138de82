"""Let a SuperNode send few headers, over connections that stay open.

Both are bytes of a device's line: Flower's client repeats 700 bytes in each request, and closes a
connection that was idle for 5 s, after which the next request begins with a TLS handshake.
"""

from __future__ import annotations

import time
from typing import Any

import httpx

from flower_ist.deploy.gateway.short import ASKED, HEADER, digest

FRESH_SECONDS = 120.0
"""After so long headers are sent in full again: what a gateway holds needs a signature that is
young enough for the SuperLink, which takes those of the last five minutes."""

# The gateway closes what was idle for 60 s. A SuperNode tells every 20 s or so that it lives.
_KEEP_OPEN_SECONDS = 50.0
_SIGNATURE = "flwr-signature"


class ShortTransport(httpx.HTTPTransport):
    """httpx's transport, which names headers that the gateway has seen instead of sending them.

    With a server that does not say that it understands, everything is sent as Flower made it.

    Args:
        options: as httpx gives them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "limits": httpx.Limits(keepalive_expiry=_KEEP_OPEN_SECONDS)})
        self._known = ("", 0.0)  # the digest that the gateway knows, and until when it is used

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and once more in full if the gateway does not know its headers."""
        if _SIGNATURE not in request.headers:
            return super().handle_request(request)
        name, until = self._known
        if name and time.monotonic() < until:
            try:
                response = super().handle_request(_shortened(request, name))
            except httpx.TransportError:
                self._known = ("", 0.0)  # Flower tries again
                raise
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return response
            response.close()
            if self._known[0] == name:  # unless another thread has sent newer ones since
                self._known = ("", 0.0)
        sent = time.monotonic()
        signature = request.headers[_SIGNATURE]
        request.headers[HEADER] = ASKED
        response = super().handle_request(request)
        # An answer that was held back, as a heartbeat's may be, names older headers.
        if response.headers.get(HEADER) == ASKED and sent + FRESH_SECONDS > self._known[1]:
            self._known = (digest(signature.encode()).decode(), sent + FRESH_SECONDS)
        return response


def _shortened(request: httpx.Request, name: str) -> httpx.Request:
    # HTTP/1.1 asks for a host; the gateway is the only one behind its address and reads none.
    headers = {"host": "-"}
    if (length := request.headers.get("content-length")) is not None:
        headers["content-length"] = length
    return httpx.Request(
        request.method,
        request.url,
        headers={**headers, HEADER: name},
        stream=request.stream,
        extensions=request.extensions,
    )


def install() -> None:
    """Give all HTTP clients that this process will make the short transport."""
    # Flower makes its client itself and lets nobody choose its transport.
    httpx._client.HTTPTransport = ShortTransport  # type: ignore[attr-defined, assignment]
