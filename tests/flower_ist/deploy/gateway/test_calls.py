"""Devices' calls pass, nothing else does, and a device's size is bounded before it is read."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpcore
import httpx
import pytest
from flwr.proto.fab_pb2 import Fab, GetFabRequest, GetFabResponse
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import PullObjectRequest, PushObjectRequest
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes

from flower_ist.deploy.gateway.calls import MAX_REQUEST_BYTES
from flower_ist.deploy.gateway.superlink import Answer, SuperLink
from flower_ist.runs.ports import free_port
from tests.fakes.gateway import Device, FakeSuperLink, Gateway, gateway, ok, signed


@pytest.fixture
def superlink() -> FakeSuperLink:
    return FakeSuperLink()


@pytest.fixture
def door(superlink: FakeSuperLink, tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, superlink) as running:
        yield running


def activated(door: Gateway) -> Device:
    device = Device(door)
    answer = device.client.ActivateNode(
        ActivateNodeRequest(public_key=public_key_to_bytes(device.public), heartbeat_interval=30)
    )
    device.node.node_id = answer.node_id
    return device


def test_a_devices_call_passes_with_the_headers_that_count(
    door: Gateway, superlink: FakeSuperLink
) -> None:
    device = activated(door)
    superlink.replies["push-object"] = lambda body: ok(b"\x08\x01")
    request = PushObjectRequest(node=device.node, object_id="a", object_content=b"weights")
    assert device.client.PushObject(request).stored
    name, body, headers = superlink.asked[-1]
    assert (name, body) == ("push-object", request.SerializeToString())
    assert headers[b"content-type"] == b"application/protobuf"
    assert headers[b"flwr-signature"]


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/pull-object"),
        *("/", "/docs", "/openapi.json", "/health", "/v1/responses", "/v1/fleet", "/v1/fleet/"),
        *("/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run"),
        *("/v1/fleet/..%2fcontrol%2fstart-run", "/v1/fleet/a/b", "/v1/fleet/pull%0a"),
        *("//v1/fleet/pull-object/../../control", "/v1/fleet/PULL-OBJECT", "/bytes"),
    ],
)
def test_nothing_else_passes(door: Gateway, superlink: FakeSuperLink, path: str) -> None:
    device = activated(door)
    with door.connect() as line:
        headers = "".join(f"{k}: {v}\r\n" for k, v in device.headers().items())
        line.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode())
        assert line.recv(4096).startswith(b"HTTP/1.1 404 ")
    assert superlink.count("activate-node") == len(superlink.asked) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_only_posts_pass(door: Gateway, superlink: FakeSuperLink, method: str) -> None:
    with door.client() as client:
        assert client.request(method, "/v1/fleet/pull-messages").status_code == 405
    assert superlink.asked == []


def test_a_query_is_not_passed_on(door: Gateway, superlink: FakeSuperLink) -> None:
    private, public = generate_key_pairs()
    with door.client() as client:
        client.post("/v1/fleet/activate-node?x=/../control", headers=signed(private, public))
    assert [name for name, _, _ in superlink.asked] == ["activate-node"]


@pytest.mark.parametrize(
    "change",
    [
        {"flwr-signature": "AAAA"},
        {"flwr-signature": "not base64!"},
        {"flwr-public-key": "AAAA"},
        {"flwr-timestamp": "yesterday"},
        {"flwr-timestamp": "2020-01-01T00:00:00+00:00"},
        {"flwr-timestamp": "2020-01-01T00:00:00"},
        {"flwr-timestamp": b"\xff\xe4"},
        {"flwr-public-key": b"\xc3\xa4"},
    ],
)
def test_who_has_not_signed_is_refused_before_the_superlink_is_asked(
    door: Gateway, superlink: FakeSuperLink, change: dict[str, str | bytes]
) -> None:
    private, public = generate_key_pairs()
    headers = {**signed(private, public), **change}
    raw = [(k, v.encode() if isinstance(v, str) else v) for k, v in headers.items()]
    with door.client() as client:
        answer = client.post("/v1/fleet/activate-node", headers=raw, content=b"x" * 100)
    assert answer.status_code == 401
    assert superlink.asked == []


@pytest.mark.parametrize(
    ("ago", "status"), [(0, 200), (290, 200), (310, 401), (-4, 200), (-6, 401)]
)
def test_a_signature_is_as_old_as_flower_allows(door: Gateway, ago: float, status: int) -> None:
    keys = generate_key_pairs()
    with door.client() as client:
        answer = client.post("/v1/fleet/activate-node", headers=signed(*keys, ago=ago))
    assert answer.status_code == status


def test_a_stranger_may_not_send_a_body(door: Gateway, superlink: FakeSuperLink) -> None:
    """Neither without a signature nor with one of a key that nobody has registered."""
    keys = generate_key_pairs()
    for call, headers, size, status in (
        ("push-object", {}, MAX_REQUEST_BYTES, 401),
        ("push-object", signed(*keys), 100, 503),
        ("get-fab", signed(*keys), 100, 503),
        ("activate-node", signed(*keys), 5000, 503),
    ):
        with door.connect() as line:
            head = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
            line.sendall(
                f"POST /v1/fleet/{call} HTTP/1.1\r\nhost: x\r\n{head}"
                f"content-length: {size}\r\n\r\n".encode()
            )
            # Answered although no byte of the body was sent.
            assert line.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())
    assert superlink.asked == []


def test_a_request_above_the_largest_is_refused(door: Gateway) -> None:
    device = activated(door)
    with door.client() as client:
        content = bytes(MAX_REQUEST_BYTES + 1)
        # It is read to its end, so that the refusal arrives: after a reset a node would try again.
        answer = client.post("/v1/fleet/push-object", headers=device.headers(), content=content)
    assert answer.status_code == 413


def test_a_node_may_send_so_much_for_each_message(tmp_path: Path) -> None:
    """1,000 kB in any case, and twice what it was sent: 500 kB make it 2,000 kB."""
    superlink = FakeSuperLink()
    superlink.replies["pull-object"] = lambda body: ok(bytes(500_000))
    message = PullMessagesResponse(message_object_trees=[{"object_id": "a"}]).SerializeToString()

    def push(device: Device, size: int) -> int:
        with door.client() as client:
            url = "/v1/fleet/push-object"
            answer = client.post(url, headers=device.headers(), content=bytes(size))
        return answer.status_code

    with gateway(tmp_path, superlink, reply_bytes=1_000_000) as door:
        device = activated(door)
        assert [push(device, 400_000) for _ in range(3)] == [200, 200, 413]
        superlink.messages[device.node.node_id] = message
        assert device.client.PullMessages(PullMessagesRequest(node=device.node)).ByteSize()
        with door.client() as client:
            client.post("/v1/fleet/pull-object", headers=device.headers())
        assert [push(device, 400_000) for _ in range(6)] == [200] * 5 + [413]
        # Small errors still pass, and another node is not affected.
        assert push(activated(door), 400_000) == 200


class Pool:
    """A connection to a SuperLink that answers everything alike."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response = httpcore.Response(status, headers=headers, content=b"trace")
        self.headers: list[tuple[bytes, bytes]] = []

    async def request(self, *_: object, **given: Any) -> httpcore.Response:
        self.headers = given["headers"]
        await self.response.aread()
        return self.response


def asked(pool: Pool, headers: dict[bytes, bytes]) -> Answer:
    superlink = SuperLink("127.0.0.1:1", None)
    superlink._pool = pool  # type: ignore[assignment]
    return anyio.run(superlink.call, "pull-messages", b"", headers)


@pytest.mark.parametrize("status", [500, 502, 504, 599])
def test_no_error_of_the_superlink_reaches_a_device(status: int) -> None:
    """A SuperNode that sees a 500 leaves the federation; after a 503 it tries again."""
    answer = asked(Pool(status, []), {})
    assert answer.status == 503
    assert b"trace" not in answer.content


def test_few_headers_pass_and_no_cookie_either_way() -> None:
    pool = Pool(200, [(b"Set-Cookie", b"a=b"), (b"Content-Type", b"x/y"), (b"Server", b"z")])
    sent = {b"cookie": b"a=b", b"x-forwarded-for": b"1", b"accept": b"x/y", b"host": b"z"}
    assert asked(pool, sent).headers == {b"content-type": b"x/y"}
    assert pool.headers == [(b"accept", b"x/y")]


def test_when_the_superlink_is_away_a_device_is_told_to_try_again() -> None:
    async def ask() -> Answer:
        async with SuperLink(f"127.0.0.1:{free_port()}", None) as superlink:
            return await superlink.call("pull-messages", b"", {})

    assert anyio.run(ask).status == 503


def test_a_refusal_of_the_superlink_reaches_the_device_and_ends_its_rights(
    door: Gateway, superlink: FakeSuperLink
) -> None:
    device = activated(door)
    superlink.refused = True
    with door.client() as client:
        assert client.post("/v1/fleet/get-run", headers=device.headers()).status_code == 401
        # It is a stranger again.
        large = client.post("/v1/fleet/push-object", headers=device.headers(), content=b"x")
    assert large.status_code == 503


def test_an_app_bundle_is_compressed_on_the_line(door: Gateway, superlink: FakeSuperLink) -> None:
    device = activated(door)
    bundle = GetFabResponse(fab=Fab(hash_str="h", content=b"import numpy\n" * 1000))
    superlink.replies["get-fab"] = lambda body: ok(bundle.SerializeToString())
    answer = device.client.GetFab(GetFabRequest(node=device.node, hash_str="h", run_id=1))
    assert answer == bundle
    with door.client() as client:
        client.headers["accept-encoding"] = "identity"
        plain = client.post("/v1/fleet/get-fab", headers=device.headers())
        client.headers["accept-encoding"] = "gzip"
        packed = client.post("/v1/fleet/get-fab", headers=device.headers())
    assert plain.content == packed.content == bundle.SerializeToString()
    assert packed.num_bytes_downloaded == len(gzip.compress(plain.content)) < 200


def test_what_a_slow_device_holds_up_is_only_itself(
    door: Gateway, superlink: FakeSuperLink
) -> None:
    """Three that send their 5 MB slowly, three that do not read: a seventh is served at once."""
    superlink.replies["pull-object"] = lambda body: ok(bytes(5_000_000))
    slow = [activated(door) for _ in range(6)]
    lines = []
    for number, device in enumerate(slow):
        line = door.connect()
        lines.append(line)
        call, size = ("push-object", 900_000) if number < 3 else ("pull-object", 0)
        head = "".join(f"{k}: {v}\r\n" for k, v in device.headers().items())
        line.sendall(
            f"POST /v1/fleet/{call} HTTP/1.1\r\nhost: x\r\n{head}"
            f"content-length: {size}\r\n\r\n".encode()
        )
    time.sleep(0.5)
    quick = activated(door)
    start = time.monotonic()
    request = PullObjectRequest(node=quick.node, object_id="a")
    with door.client() as client:
        answer = client.post(
            "/v1/fleet/pull-object", headers=quick.headers(), content=request.SerializeToString()
        )
    assert len(answer.content) == 5_000_000
    assert time.monotonic() - start < 20
    for line in lines:
        line.close()


def test_a_lost_answer_is_given_again(door: Gateway, superlink: FakeSuperLink) -> None:
    """The SuperLink gives a message once; a node that asks again has not received it."""
    device = activated(door)
    message = PullMessagesResponse(message_object_trees=[{"object_id": "a"}])
    superlink.messages[device.node.node_id] = message.SerializeToString()
    request = PullMessagesRequest(node=device.node)
    assert device.client.PullMessages(request) == message
    assert device.client.PullMessages(request) == message
    # Whoever fetches a message has received its answer: it waits for the next one.
    device.client.PushMessages(PushMessagesRequest(node=device.node))
    done: list[PullMessagesResponse] = []
    waiting = threading.Thread(target=lambda: done.append(device.client.PullMessages(request)))
    waiting.start()
    time.sleep(1.0)
    assert done == []
    superlink.messages[device.node.node_id] = message.SerializeToString()
    waiting.join(30)
    assert done == [message]


def test_a_browser_that_speaks_http2_or_nothing_is_refused(door: Gateway) -> None:
    with door.connect() as line:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert line.recv(4096)[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 505 ")
    with pytest.raises(httpx.HTTPError), httpx.Client(trust_env=False) as plain:
        plain.post(f"http://127.0.0.1:{door.port}/v1/fleet/pull-messages")
