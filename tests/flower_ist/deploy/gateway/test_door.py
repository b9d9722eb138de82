"""Who has no key cannot keep out those who have one, whatever he sends or does not send."""

from __future__ import annotations

import socket
import ssl
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from flower_ist.deploy.gateway import http, strangers
from flower_ist.deploy.gateway.budget import Budget
from flower_ist.deploy.gateway.device import MAX_LINES_OF_A_NODE
from flower_ist.deploy.gateway.strangers import MAX, MAX_OF_A_PEER, Strangers
from tests.fakes.gateway import Device, FakeSuperLink, Gateway, gateway
from tests.fakes.secured import CountingProxy


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, FakeSuperLink()) as running:
        yield running


def activate(door: Gateway, port: int = 0) -> Device:
    device = Device(door, port)
    key = public_key_to_bytes(device.public)
    request = ActivateNodeRequest(public_key=key, heartbeat_interval=30)
    device.node.node_id = device.client.ActivateNode(request).node_id
    return device


def ended(line: socket.socket) -> bool:
    """Wait for the other side to close a connection."""
    try:
        while line.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def test_520_idle_connections_shut_nobody_out(door: Gateway) -> None:
    with ExitStack() as stack:
        for _ in range(520):
            raw = socket.create_connection(("127.0.0.1", door.port), timeout=60)
            stack.enter_context(raw)
        start = time.monotonic()
        assert activate(door).node.node_id
        assert time.monotonic() - start < 30


def test_the_oldest_stranger_of_a_peer_gives_way() -> None:
    async def check() -> None:
        room = Strangers()
        with ExitStack() as stack:
            scopes = [anyio.CancelScope() for _ in range(MAX_OF_A_PEER)]
            visits = [stack.enter_context(room.visit("a", scope)) for scope in scopes]
            room.known(visits[0])  # it has shown its key: it stays
            for _ in range(2):
                stack.enter_context(room.visit("a", anyio.CancelScope()))
            assert [scope.cancel_called for scope in scopes[:3]] == [False, True, False]
            # Another peer has its own places.
            stack.enter_context(room.visit("b", anyio.CancelScope()))
            assert not scopes[2].cancel_called
        assert len(room) == 0

    anyio.run(check)


def test_many_peers_share_all_places() -> None:
    async def check() -> None:
        room = Strangers()
        with ExitStack() as stack:
            scopes = [anyio.CancelScope() for _ in range(MAX)]
            for number, scope in enumerate(scopes):
                stack.enter_context(room.visit(f"peer-{number}", scope))
            stack.enter_context(room.visit("one more", anyio.CancelScope()))
            assert [number for number, s in enumerate(scopes) if s.cancel_called] == [0]

    anyio.run(check)


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1/fleet/pull-messages HTTP/1.1\r\na", b"POST / HTTP/1.1\r\nhost: x\r\n\r\n"],
)
def test_a_stranger_has_little_time(
    door: Gateway, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that opens TCP and says nothing, or asks again and again for what is not there."""
    monkeypatch.setattr(strangers, "LOGIN_SECONDS", 1.0)
    with socket.create_connection(("127.0.0.1", door.port), timeout=60) as raw:
        assert ended(raw)
    with door.connect() as line:
        line.sendall(sent)
        assert ended(line)


def test_a_head_must_be_whole_in_time(door: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 1.0)
    start = time.monotonic()
    with door.connect() as line:
        line.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\n")
        assert ended(line)
    assert time.monotonic() - start < strangers.LOGIN_SECONDS


def test_a_flood_of_headers_is_refused_at_once(door: Gateway) -> None:
    flood = b"".join(b"cookie: a%d=%d\r\n" % (n, n) for n in range(20_000))
    before = time.process_time()
    with door.connect() as line:
        try:
            line.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n" + flood + b"\r\n")
            assert line.recv(13) in (b"HTTP/1.1 431 ", b"HTTP/1.1 400 ", b"")
        except (ConnectionError, ssl.SSLEOFError):  # closed while the flood was still coming
            pass
    assert time.process_time() - before < 2.0
    assert activate(door).node.node_id


@pytest.mark.parametrize("header", [b"x-name: \xff\xe4", b"\xff: x", b"cookie: a=b", b"x: \x00"])
def test_no_byte_in_a_header_does_harm(
    door: Gateway, header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with door.connect() as line:
        line.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n" + header + b"\r\n\r\n")
        assert line.recv(12) in (b"HTTP/1.1 401", b"HTTP/1.1 400")
    assert caplog.records == []


def test_60_unsigned_bodies_of_8_mib_are_not_kept(door: Gateway) -> None:
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\ncontent-length: 8388608\r\n\r\n"
    tracemalloc.start()
    try:
        for _ in range(60):
            with door.connect() as line:
                try:
                    line.sendall(head)
                    for _ in range(8):
                        line.sendall(bytes(2**20))
                except (ConnectionError, OSError):
                    pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20


def test_a_node_has_a_limit_of_connections(door: Gateway) -> None:
    device = activate(door)
    body = PullMessagesRequest(node=device.node).SerializeToString()
    statuses = []
    with ExitStack() as stack:
        for _ in range(MAX_LINES_OF_A_NODE):
            line = stack.enter_context(door.connect())
            head = "".join(f"{k}: {v}\r\n" for k, v in device.headers().items())
            line.sendall(
                f"POST /v1/fleet/get-run HTTP/1.1\r\nhost: x\r\n{head}"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            statuses.append(line.recv(12)[-3:])
    # The device's own connection is one of them.
    assert statuses == [b"200"] * (MAX_LINES_OF_A_NODE - 1) + [b"503"]


def test_memory_is_shared_and_given_back() -> None:
    async def check() -> None:
        budget, order = Budget(total=100, each=60), []

        async def use(owner: str, size: int, seconds: float, kept: int) -> None:
            async with budget.hold(owner, size) as hold:
                order.append((owner, size))
                hold.keep(kept)
                await anyio.sleep(seconds)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use, "a", 60, 0.2, 60)
            await anyio.sleep(0.01)
            tasks.start_soon(use, "a", 10, 0.0, 10)  # a has its share: it waits for itself
            tasks.start_soon(use, "b", 50, 0.0, 50)  # not enough is left
            tasks.start_soon(use, "c", 40, 0.0, 40)
        assert order[:2] == [("a", 60), ("c", 40)]
        assert set(order[2:]) == {("a", 10), ("b", 50)}
        async with budget.hold("a", 60) as hold:
            hold.keep(10)
            async with budget.hold("a", 50):
                pass

    anyio.run(check)


def test_the_ledger_says_what_a_proxy_counts(door: Gateway) -> None:
    """Each byte on the line, TLS included, is in the books of the node whose line it is."""
    with CountingProxy(door.port) as proxy:
        device = activate(door, proxy.port)
        for _ in range(20):
            device.client.ConfirmMessageReceived(_confirm(device))
        device.close()
        deadline = time.monotonic() + 30
        while True:
            counts = door.ledger.content()["nodes"][str(device.node.node_id)]
            down, up = (sum(kind[way] for kind in counts.values()) for way in (0, 1))
            if (down, up) == (proxy.bytes_to_clients, proxy.bytes_to_server):
                break
            assert time.monotonic() < deadline, (down, up, vars(proxy))
            time.sleep(0.1)
    assert counts["messages"][1] > 20 * 500
    # One handshake: a certificate down; little up, and not the request that follows it.
    assert 500 < counts["handshakes"][0] < 2500
    assert 300 < counts["handshakes"][1] < 1100


def _confirm(device: Device) -> object:
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest

    return ConfirmMessageReceivedRequest(node=device.node, run_id=1, message_object_id="a")
