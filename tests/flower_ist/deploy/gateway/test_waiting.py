"""A question for work is held until there is some, in few bytes, for many nodes at once."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from flower_ist.deploy.gateway import nodes, waiting
from tests.fakes.gateway import Device, FakeSuperLink, Gateway, gateway, ok

MESSAGE = PullMessagesResponse(message_object_trees=[{"object_id": "a"}])


@pytest.fixture
def superlink() -> FakeSuperLink:
    return FakeSuperLink()


@pytest.fixture
def door(superlink: FakeSuperLink, tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, superlink) as running:
        yield running


class Waiter:
    """A node that asks for messages in a thread."""

    def __init__(self, door: Gateway) -> None:
        self.device = Device(door)
        key = public_key_to_bytes(self.device.public)
        request = ActivateNodeRequest(public_key=key, heartbeat_interval=30)
        self.device.node.node_id = self.device.client.ActivateNode(request).node_id
        self.node_id = self.device.node.node_id
        self.answer: PullMessagesResponse | None = None
        self.answered_at = 0.0
        self.thread = threading.Thread(target=self._ask, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def _ask(self) -> None:
        request = PullMessagesRequest(node=self.device.node)
        with suppress(httpx.TransportError):  # the test is over
            self.answer = self.device.client.PullMessages(request)
            self.answered_at = time.monotonic()

    def heartbeat(self) -> threading.Thread:
        request = SendNodeHeartbeatRequest(node=self.device.node, heartbeat_interval=30)

        def send() -> None:
            with suppress(httpx.TransportError):
                self.device.client.SendNodeHeartbeat(request)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        return thread


def wait_for(door: Gateway, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(door.calls.waiting) != count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def one_that_waits(door: Gateway) -> Waiter:
    waiter = Waiter(door)
    waiter.start()
    wait_for(door, 1)
    return waiter


def test_messages_reach_waiting_nodes_within_a_second(
    door: Gateway, superlink: FakeSuperLink
) -> None:
    delays = []
    for _ in range(5):
        waiters = [Waiter(door) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        wait_for(door, 3)
        superlink.messages |= {w.node_id: MESSAGE.SerializeToString() for w in waiters}
        put_at = time.monotonic()
        for waiter in waiters:
            waiter.thread.join(60)
            assert waiter.answer == MESSAGE
            delays.append(waiter.answered_at - put_at)
    assert statistics.median(delays) < 1.0


def test_while_a_node_waits_its_line_carries_nearly_nothing(
    door: Gateway, superlink: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sign of life is 17 bytes in a TLS record of 22 more; nothing is sent up."""
    monkeypatch.setattr(waiting, "POLL_TICK_SECONDS", 0.2)
    waiter = one_that_waits(door)
    time.sleep(0.3)
    before = [list(c) for c in door.ledger.content()["nodes"][str(waiter.node_id)].values()]
    time.sleep(1.5)
    superlink.messages[waiter.node_id] = MESSAGE.SerializeToString()
    waiter.thread.join(60)
    assert waiter.answer == MESSAGE
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        after = door.ledger.content()["nodes"][str(waiter.node_id)]
        if after["messages"][0]:
            break
        time.sleep(0.05)
    grown = sum(after[kind][0] for kind in after) - sum(down for down, _ in before)
    assert sum(after[kind][1] for kind in after) == sum(up for _, up in before)
    assert 39 * 5 < grown < 39 * 30 + 400


def test_the_client_outlasts_any_timeout_while_signs_of_life_come(
    door: Gateway, superlink: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timeout is 30 s for a question and 5 s for a heartbeat: here both are 1 s."""
    monkeypatch.setattr(waiting, "POLL_TICK_SECONDS", 0.3)
    monkeypatch.setattr(waiting, "HEARTBEAT_TICK_SECONDS", 0.3)
    monkeypatch.setattr("flwr.supernode.fleet_http_client.HEARTBEAT_CALL_TIMEOUT", 1)
    waiter = Waiter(door)
    waiter.device.client._client.timeout = 1
    waiter.start()
    wait_for(door, 1)
    heartbeat = waiter.heartbeat()
    time.sleep(3)
    assert waiter.thread.is_alive()
    assert heartbeat.is_alive()
    superlink.messages[waiter.node_id] = MESSAGE.SerializeToString()
    waiter.thread.join(60)
    assert waiter.answer == MESSAGE
    # A node that works sends its heartbeats as ever.
    heartbeat.join(20)
    assert not heartbeat.is_alive()


def test_heartbeats_are_repeated_for_a_node_that_waits(
    door: Gateway, superlink: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_HEARTBEAT_SECONDS", 0.5)
    waiter = one_that_waits(door)
    heartbeat = waiter.heartbeat()
    deadline = time.monotonic() + 60
    while superlink.count("send-node-heartbeat") < 4:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert heartbeat.is_alive()
    # A SuperLink that no longer knows the node is heard.
    superlink.replies["send-node-heartbeat"] = lambda body: ok(b"")
    heartbeat.join(20)
    assert not heartbeat.is_alive()


def test_an_old_signature_ends_the_wait(
    door: Gateway, superlink: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the gateway asks in a node's place must be signed within five minutes."""
    monkeypatch.setattr(waiting, "POLL_TICK_SECONDS", 0.2)
    waiter = one_that_waits(door)
    monkeypatch.setattr(nodes.Node, "signature_is_old", property(lambda _: True))
    waiter.thread.join(30)
    assert waiter.answer == PullMessagesResponse()


def test_who_leaves_is_not_kept_alive(door: Gateway, superlink: FakeSuperLink) -> None:
    waiter = one_that_waits(door)
    heartbeat = waiter.heartbeat()
    other = Device(door)
    other.signer, other.node = waiter.device.signer, waiter.device.node
    other.client._interceptors = (other.signer,)
    other.client.DeactivateNode(DeactivateNodeRequest(node_id=waiter.node_id))
    waiter.thread.join(20)
    heartbeat.join(20)
    assert not heartbeat.is_alive()
    wait_for(door, 0)


def test_a_node_that_hangs_up_is_no_longer_asked_for(
    door: Gateway, superlink: FakeSuperLink
) -> None:
    waiter = Waiter(door)
    with door.connect() as line:
        head = "".join(f"{k}: {v}\r\n" for k, v in waiter.device.headers().items())
        body = PullMessagesRequest(node=waiter.device.node).SerializeToString()
        line.sendall(
            f"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n{head}"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        wait_for(door, 1)
    wait_for(door, 0)
    # What came meanwhile is not lost.
    superlink.messages[waiter.node_id] = MESSAGE.SerializeToString()
    waiter.start()
    waiter.thread.join(30)
    assert waiter.answer == MESSAGE


def test_while_the_superlink_is_away_nodes_go_on_waiting(
    door: Gateway, superlink: FakeSuperLink
) -> None:
    from flower_ist.deploy.gateway.superlink import say

    waiter = one_that_waits(door)
    superlink.replies["pull-messages"] = lambda body: say(503, "away")
    time.sleep(2.5)
    assert waiter.thread.is_alive()
    del superlink.replies["pull-messages"]
    superlink.messages[waiter.node_id] = MESSAGE.SerializeToString()
    waiter.thread.join(30)
    assert waiter.answer == MESSAGE
