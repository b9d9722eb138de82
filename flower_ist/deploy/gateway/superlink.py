"""Calls to the SuperLink, over a few connections that stay open."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import httpcore

_TIMEOUT = {"connect": 10.0, "read": 60.0, "write": 60.0, "pool": 60.0}
_MAX_CONNECTIONS = 32
# The SuperLink closes a connection that was idle for 5 s.
_KEEP_OPEN_SECONDS = 3.0

# What a SuperNode sends beside these is not needed there, and costs time to read.
_DOWN = {b"content-type", b"flwr-version-incompatibility-message"}
_UP = {
    *(b"content-type", b"accept", b"flwr-public-key", b"flwr-timestamp", b"flwr-signature"),
    *(b"flwr-package-name", b"flwr-package-version", b"flwr-component-name"),
}

_log = logging.getLogger("gateway")


@dataclass(frozen=True)
class Answer:
    """What the SuperLink says, or the gateway in its place."""

    status: int
    content: bytes
    headers: Mapping[bytes, bytes]


def say(status: int, text: str) -> Answer:
    """Return an answer of the gateway's own."""
    return Answer(status, text.encode(), {b"content-type": b"text/plain"})


class SuperLink:
    """The SuperLink's Fleet API.

    Args:
        address: ``host:port``.
        context: trusts the federation's authority; None: without TLS.
    """

    def __init__(self, address: str, context: ssl.SSLContext | None) -> None:
        self._url = f"{'http' if context is None else 'https'}://{address}/v1/fleet/"
        # No cookies, no redirects, no proxy from the environment: a pool of connections, no more.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=_MAX_CONNECTIONS,
            keepalive_expiry=_KEEP_OPEN_SECONDS,
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._pool.aclose()

    async def call(self, name: str, body: bytes, headers: Mapping[bytes, bytes]) -> Answer:
        """Return the SuperLink's answer to a node's call.

        An error of the SuperLink's own becomes 503. A SuperNode tries again after that. After any
        other status above 499 it would take itself out of the federation, while its process lives.
        """
        try:
            response = await self._pool.request(
                "POST",
                self._url + name,
                headers=[(key, headers[key]) for key in sorted(_UP & headers.keys())],
                content=body,
                extensions={"timeout": _TIMEOUT},
            )
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            return say(503, "The SuperLink does not answer.")
        if response.status >= 500:
            _log.warning("The SuperLink answered %d to %s.", response.status, name)
            return say(503, "The SuperLink had an error.")
        kept = {k.lower(): v for k, v in response.headers if k.lower() in _DOWN}
        return Answer(response.status, response.content, kept)
