"""The gateway lets devices' calls through unchanged, and nothing else at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flower_ist.deploy.gateway import MAX_REQUEST_BYTES, make_gateway


class FakeSuperLink:
    """Answers every path and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, dict[str, str]]] = []
        self.app = Starlette(
            routes=[Route("/{path:path}", self.answer, methods=["GET", "POST", "PUT"])]
        )

    async def answer(self, request: Request) -> Response:
        self.asked.append((request.url.path, await request.body(), dict(request.headers)))
        if request.url.path.endswith("pull-object"):
            return PlainTextResponse("not for you", 401)
        return Response(b"\x00answer", headers={"content-type": "application/protobuf"})


class Silent(httpx.AsyncBaseTransport):
    """A SuperLink that is not there."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)


@pytest.fixture
def superlink() -> FakeSuperLink:
    return FakeSuperLink()


def ask(
    transport: httpx.AsyncBaseTransport,
    path: str,
    method: str = "POST",
    content: bytes | AsyncIterator[bytes] = b"",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    async def once() -> httpx.Response:
        behind = httpx.AsyncClient(base_url="https://superlink", transport=transport)
        before = httpx.ASGITransport(make_gateway(behind))
        async with (
            behind,
            httpx.AsyncClient(base_url="https://gateway", transport=before) as device,
        ):
            return await device.request(method, path, content=content, headers=headers)

    return asyncio.run(once())


def test_a_devices_call_passes_unchanged(superlink: FakeSuperLink) -> None:
    answer = ask(
        httpx.ASGITransport(superlink.app),
        "/v1/fleet/push-object",
        content=b"\x01weights",
        headers={"flwr-signature": "abc", "content-type": "application/protobuf"},
    )
    assert (answer.status_code, answer.content) == (200, b"\x00answer")
    assert answer.headers["content-type"] == "application/protobuf"
    ((path, body, headers),) = superlink.asked
    assert (path, body) == ("/v1/fleet/push-object", b"\x01weights")
    assert headers["flwr-signature"] == "abc"
    assert headers["host"] == "superlink"


def test_a_refusal_of_the_superlink_reaches_the_device(superlink: FakeSuperLink) -> None:
    answer = ask(httpx.ASGITransport(superlink.app), "/v1/fleet/pull-object")
    assert (answer.status_code, answer.text) == (401, "not for you")


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/pull-object"),
        *("/", "/docs", "/openapi.json", "/health", "/v1/responses", "/v1/fleet", "/v1/fleet/"),
        *("/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run"),
        *("/v1/fleet/..%2fcontrol%2fstart-run", "/v1/fleet/a/b", "/v1/fleet/pull%0a"),
        *("//v1/fleet/pull-object/../../control", "/v1/fleet/PULL-OBJECT", "/v1/fleet/%2e%2e"),
    ],
)
def test_nothing_else_passes(superlink: FakeSuperLink, path: str) -> None:
    answer = ask(httpx.ASGITransport(superlink.app), path)
    assert answer.status_code == 404
    assert superlink.asked == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_only_posts_pass(superlink: FakeSuperLink, method: str) -> None:
    answer = ask(httpx.ASGITransport(superlink.app), "/v1/fleet/pull-messages", method)
    assert answer.status_code == 405
    assert superlink.asked == []


def test_a_query_is_not_passed_on(superlink: FakeSuperLink) -> None:
    ask(httpx.ASGITransport(superlink.app), "/v1/fleet/pull-messages?x=/../control")
    assert superlink.asked[0][0] == "/v1/fleet/pull-messages"


def test_the_largest_request_passes_and_a_byte_more_does_not(superlink: FakeSuperLink) -> None:
    transport = httpx.ASGITransport(superlink.app)
    full = bytes(MAX_REQUEST_BYTES)
    assert ask(transport, "/v1/fleet/push-object", content=full).status_code == 200
    assert ask(transport, "/v1/fleet/push-object", content=full + b"x").status_code == 413
    assert len(superlink.asked) == 1


def test_when_the_superlink_is_away_a_device_is_told_to_try_again() -> None:
    assert ask(Silent(), "/v1/fleet/pull-messages").status_code == 503
