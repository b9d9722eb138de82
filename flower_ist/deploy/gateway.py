"""Forward only a SuperLink's Fleet API, so that devices get in and nobody else does.

Flower 1.41 serves devices and operators on one port, and checks keys only on the Fleet API. Anyone
who reaches that port can register a node or start a run, that is, run any code on all devices. So
the SuperLink listens on the loopback address, and this program on the address that devices reach.

It needs only what flwr installs, and is copied into a deployment: ``python gateway.py --help``.
"""

from __future__ import annotations

import argparse
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

MAX_REQUEST_BYTES = 8 * 2**20
"""Flower's largest request is a chunk of an array, 5 MiB. The SuperLink itself sets no limit."""

_MAX_CONNECTIONS = 512
_TIMEOUT_SECONDS = 60.0
_CALL = re.compile(r"[a-z-]+")
# These belong to one connection and are not passed on (RFC 9110, section 7.6.1).
_OF_THE_CONNECTION = frozenset(
    {"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


def make_gateway(superlink: httpx.AsyncClient) -> Starlette:
    """Return the gateway as an ASGI app; ``superlink`` has the SuperLink's URL as its base."""

    async def pass_on(request: Request) -> Response:
        call = request.path_params["call"]
        if not _CALL.fullmatch(call):
            return PlainTextResponse("There is no such call.", 404)
        try:
            body = await _read(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nothing reads it
        if body is None:
            return PlainTextResponse("The request is too large.", 413)
        inner = superlink.build_request(
            "POST", f"/v1/fleet/{call}", content=body, headers=_end_to_end(request.headers.items())
        )
        try:
            answer = await superlink.send(inner, stream=True)
        except httpx.TransportError:
            # SuperNodes retry after this status: the SuperLink may be restarting.
            return PlainTextResponse("The SuperLink does not answer.", 503)
        return StreamingResponse(
            answer.aiter_raw(),
            answer.status_code,
            _end_to_end(answer.headers.items()),
            background=BackgroundTask(answer.aclose),
        )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with superlink:
            yield

    route = Route("/v1/fleet/{call}", pass_on, methods=["POST"])
    return Starlette(routes=[route], lifespan=lifespan)


async def _read(request: Request) -> bytes | None:
    """Return a request's body, or None as soon as it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            return None
    return bytes(body)


def _end_to_end(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in _OF_THE_CONNECTION}


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(description="Pass on a SuperLink's Fleet API to devices.")
    parser.add_argument("--host", required=True, help="address to listen at")
    parser.add_argument("--port", type=int, required=True, help="port to listen at")
    parser.add_argument("--superlink", required=True, help="host:port of the SuperLink")
    parser.add_argument("--ca", required=True, help="certificate of the federation's authority")
    parser.add_argument("--certificate", required=True, help="the server's certificate")
    parser.add_argument("--key", required=True, help="the server's private key")
    options = parser.parse_args()
    superlink = httpx.AsyncClient(
        base_url=f"https://{options.superlink}",
        verify=ssl.create_default_context(cafile=options.ca),
        timeout=_TIMEOUT_SECONDS,
        # A proxy set for outside traffic must not see traffic within this machine.
        trust_env=False,
    )
    uvicorn.run(
        make_gateway(superlink),
        host=options.host,
        port=options.port,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
        limit_concurrency=_MAX_CONNECTIONS,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
