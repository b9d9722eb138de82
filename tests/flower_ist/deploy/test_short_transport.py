"""Few headers and few connections, and nothing lost with a server that knows nothing of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from flower_ist.deploy import short_transport
from flower_ist.deploy.gateway import short
from flower_ist.deploy.gateway.nodes import KEY, TIMESTAMP
from flower_ist.deploy.short_transport import install
from tests.fakes.gateway import Device, FakeSuperLink, Gateway, gateway, ok
from tests.fakes.secured import CountingProxy

STORED = b"\x08\x01"


@pytest.fixture
def superlink() -> FakeSuperLink:
    fake = FakeSuperLink()
    fake.replies["push-object"] = lambda body: ok(STORED)
    return fake


@pytest.fixture
def door(superlink: FakeSuperLink, tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, superlink) as running:
        yield running


def activated(door: Gateway, port: int = 0) -> Device:
    device = Device(door, port)
    key = public_key_to_bytes(device.public)
    request = ActivateNodeRequest(public_key=key, heartbeat_interval=30)
    device.node.node_id = device.client.ActivateNode(request).node_id
    return device


def short_device(door: Gateway, monkeypatch: pytest.MonkeyPatch, port: int = 0) -> Device:
    with monkeypatch.context() as patched:
        patched.setattr(httpx._client, "HTTPTransport", httpx.HTTPTransport)  # type: ignore[attr-defined]
        install()
        return activated(door, port)


def push(device: Device, content: bytes = b"") -> None:
    request = PushObjectRequest(node=device.node, object_id="a" * 64, object_content=content)
    assert device.client.PushObject(request).stored


def bytes_up_per_push(device: Device, proxy: CountingProxy) -> float:
    push(device)
    before = proxy.bytes_to_server
    for _ in range(20):
        push(device)
    return (proxy.bytes_to_server - before) / 20


def test_a_request_takes_a_third_of_its_bytes(
    door: Gateway, superlink: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CountingProxy(door.port) as proxy:
        plain = bytes_up_per_push(activated(door, proxy.port), proxy)
        few = bytes_up_per_push(short_device(door, monkeypatch, proxy.port), proxy)
    print(f"{plain:.0f} B, {few:.0f} B")
    assert few < plain / 3
    # The SuperLink is told the same as by any node.
    by_plain, by_short = superlink.asked[1][2], superlink.asked[-1][2]
    own = {KEY, TIMESTAMP, b"flwr-signature", b"host", b"flower-ist", b"content-length"}
    needed = {b"content-type", b"accept", b"accept-encoding"}
    assert {k: v for k, v in by_short.items() if k not in own}.items() <= by_plain.items()
    assert needed <= by_short.keys()
    assert by_short[KEY] != by_plain[KEY]


def test_a_large_body_arrives_whole(
    door: Gateway, superlink: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = short_device(door, monkeypatch)
    content = bytes(range(256)) * 2000
    push(device, content)
    assert PushObjectRequest.FromString(superlink.asked[-1][1]).object_content == content


def test_headers_are_sent_in_full_again_when_they_are_old(
    door: Gateway, superlink: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = short_device(door, monkeypatch)
    push(device)
    push(device)
    times = [headers[TIMESTAMP] for _, _, headers in superlink.asked]
    assert len(set(times)) == 1
    monkeypatch.setattr(short_transport.time, "monotonic", lambda now=time.monotonic: now() + 121.0)
    push(device)
    push(device)
    assert len({headers[TIMESTAMP] for _, _, headers in superlink.asked}) == 2


def test_a_gateway_that_was_started_again_is_told_in_full(
    door: Gateway, superlink: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = short_device(door, monkeypatch)
    push(device)
    door.calls.nodes._short.clear()
    push(device)
    push(device, bytes(200_000))
    assert superlink.count("push-object") == 3


def test_a_node_that_is_no_longer_registered_hears_it(
    door: Gateway, superlink: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = short_device(door, monkeypatch)
    push(device)
    superlink.refused = True
    with pytest.raises(httpx.HTTPStatusError) as caught:
        device.client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=device.node))
    assert caught.value.response.status_code == 401
    assert door.calls.nodes._short == {}


def test_what_names_no_known_headers_is_refused(door: Gateway, superlink: FakeSuperLink) -> None:
    """Nor can headers be named whose signature is too old for the SuperLink."""
    device = activated(door)
    asked = len(superlink.asked)
    old = device.headers() | {"flwr-timestamp": "2020-01-01T00:00:00+00:00"}
    raw = {key.encode(): value.encode() for key, value in old.items()}
    door.calls.nodes._short[b"known"] = raw
    with door.client() as client:
        for name in ("", "short", "unknown", "known"):
            answer = client.post("/v1/fleet/get-run", headers={"flower-ist": name})
            assert answer.status_code == 401
    assert len(superlink.asked) == asked


def test_a_gateway_keeps_few_headers_of_a_node(door: Gateway, superlink: FakeSuperLink) -> None:
    device = activated(door)
    with door.client() as client:
        for _ in range(5):
            ask = {**device.headers(), "flower-ist": "short"}
            answer = client.post("/v1/fleet/get-run", headers=ask)
            assert answer.headers["flower-ist"] == "short"
        kept = door.calls.nodes._short
        assert len(kept) == 2
        newest = short.digest(ask["flwr-signature"].encode())
        named = client.post("/v1/fleet/get-run", headers={"flower-ist": newest.decode()})
        assert named.status_code == 200
        assert set(named.headers) == {"content-length"}
        # Others who know a digest, but not the key that it stands for, are nobody else.
        other = {
            "flower-ist": newest.decode(),
            "flwr-public-key": Device(door).headers()["flwr-public-key"],
        }
        assert client.post("/v1/fleet/get-run", headers=other).status_code == 401


def test_other_servers_get_flowers_own_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[httpx.Request] = []

    def send(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", send)
    monkeypatch.setattr(httpx._client, "HTTPTransport", httpx.HTTPTransport)  # type: ignore[attr-defined]
    install()
    with httpx.Client() as client:
        for _ in range(3):
            client.post("http://127.0.0.1/v1/fleet/get-run", headers={"flwr-signature": "s"})
        client.get("http://127.0.0.1/")
    assert [request.headers.get("flower-ist") for request in sent] == ["short"] * 3 + [None]
    assert all(request.headers["flwr-signature"] == "s" for request in sent[:3])


def test_after_a_broken_connection_headers_are_sent_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What broke it may be a gateway that no longer knows them."""
    seen: list[str] = []

    def send(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["flower-ist"])
        if seen[-1] != "short":
            raise httpx.ReadError("reset")
        return httpx.Response(200, headers={"flower-ist": "short"})

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", send)
    transport = short_transport.ShortTransport()
    for _ in range(2):
        request = httpx.Request("POST", "http://a/", headers={"flwr-signature": "s"})
        transport.handle_request(request)
        with pytest.raises(httpx.ReadError):
            transport.handle_request(request)
    name = short.digest(b"s").decode()
    assert seen == ["short", name, "short", name]
