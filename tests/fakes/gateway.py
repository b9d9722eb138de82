"""The gateway on real sockets with TLS, in front of a SuperLink that a test writes."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import generate_key_pairs
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from flower_ist.deploy.certificates import make_authority, make_server_certificate
from flower_ist.deploy.gateway.calls import Calls
from flower_ist.deploy.gateway.door import Door
from flower_ist.deploy.gateway.ledger import Ledger
from flower_ist.deploy.gateway.nodes import KEY
from flower_ist.deploy.gateway.superlink import Answer

PROTOBUF = {b"content-type": b"application/protobuf"}
Reply = Callable[[bytes], Answer]


def ok(content: bytes) -> Answer:
    """An answer of the SuperLink."""
    return Answer(200, content, PROTOBUF)


class FakeSuperLink:
    """Knows the keys that called ``activate-node``, and gives each message once.

    Attributes:
        refused: whether it says 401 to everybody.
        replies: what it says to a call, in place of an empty answer.
        messages: node id -> the answer to its next question for messages.
        asked: (call, body, headers), in order.
    """

    def __init__(self) -> None:
        self.refused = False
        self.replies: dict[str, Reply] = {}
        self.messages: dict[int, bytes] = {}
        self.asked: list[tuple[str, bytes, dict[bytes, bytes]]] = []
        self._ids: dict[bytes, int] = {}

    async def call(self, name: str, body: bytes, headers: Mapping[bytes, bytes]) -> Answer:
        self.asked.append((name, body, dict(headers)))
        if self.refused:
            return Answer(401, b"no", {})
        if name in self.replies:
            return self.replies[name](body)
        if name == "activate-node":
            node_id = self._ids.setdefault(headers[KEY], 2**63 + len(self._ids))
            return ok(ActivateNodeResponse(node_id=node_id).SerializeToString())
        if name == "send-node-heartbeat":
            return ok(SendNodeHeartbeatResponse(success=True).SerializeToString())
        if name == "pull-messages":
            node_id = PullMessagesRequest.FromString(body).node.node_id
            return ok(self.messages.pop(node_id, b""))
        return ok(b"")

    def count(self, call: str) -> int:
        """How often it was asked."""
        return sum(name == call for name, _, _ in self.asked)


class Gateway:
    """A gateway that runs in a thread.

    Attributes:
        port: of the loopback address, with TLS.
        superlink: what it stands in front of.
        ledger: its books.
        authority: the file that a client trusts.
    """

    def __init__(self, folder: Path, superlink: FakeSuperLink, reply_bytes: int = 2**20) -> None:
        authority = make_authority("test")
        server = make_server_certificate(authority, ["127.0.0.1", "localhost"])
        self.authority = folder / "ca.crt"
        self.authority.write_bytes(authority.certificate)
        (folder / "server.crt").write_bytes(server.certificate)
        (folder / "server.key").write_bytes(server.private_key)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self.superlink = superlink
        self.ledger = Ledger()
        self.calls = Calls(superlink, reply_bytes)  # type: ignore[arg-type]
        self.door = Door(self.context, self.calls, self.ledger)
        self.port = 0
        self.devices: list[Device] = []
        self._ready = threading.Event()
        self._scope: anyio.CancelScope | None = None
        self._token: object = None

    def run(self) -> None:
        async def serve() -> None:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=1024)
            self.port = int(listener.extra(anyio.abc.SocketAttribute.local_port))
            async with listener, anyio.create_task_group() as tasks:
                self._scope = tasks.cancel_scope
                self._token = anyio.lowlevel.current_token()
                tasks.start_soon(self.calls.waiting.run)
                tasks.start_soon(listener.serve, self.door.serve)
                self._ready.set()

        anyio.run(serve)

    def wait_until_ready(self) -> None:
        assert self._ready.wait(60)

    def end(self) -> None:
        assert self._scope is not None
        anyio.from_thread.run_sync(self._scope.cancel, token=self._token)

    def client(self) -> httpx.Client:
        """A client of a stranger."""
        context = ssl.create_default_context(cafile=str(self.authority))
        return httpx.Client(
            verify=context, base_url=f"https://127.0.0.1:{self.port}", trust_env=False, timeout=60
        )

    def connect(self) -> ssl.SSLSocket:
        """A bare connection after its TLS handshake."""
        context = ssl.create_default_context(cafile=str(self.authority))
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return context.wrap_socket(raw, server_hostname="127.0.0.1")


@contextmanager
def gateway(folder: Path, superlink: FakeSuperLink, reply_bytes: int = 2**20) -> Iterator[Gateway]:
    """Run a gateway during the block."""
    running = Gateway(folder, superlink, reply_bytes)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    running.wait_until_ready()
    try:
        yield running
    finally:
        for device in running.devices:
            device.close()
        running.end()
        thread.join(30)


class Device:
    """Flower's own client of the Fleet API, with a key."""

    def __init__(self, door: Gateway, port: int = 0) -> None:
        self.private, self.public = generate_key_pairs()
        self.signer = NodeAuthHttpInterceptor(self.private, self.public)
        self.client = FleetHttpClient(
            f"https://127.0.0.1:{port or door.port}",
            interceptors=[self.signer],
            verify=ssl.create_default_context(cafile=str(door.authority)),
        )
        door.devices.append(self)
        self.node = Node()

    def headers(self) -> dict[str, str]:
        """Signed headers."""
        return signed(self.private, self.public)

    def close(self) -> None:
        with suppress(httpx.HTTPError):
            self.client.close()


def signed(
    private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey, ago: float = 0.0
) -> dict[str, str]:
    """Headers as a SuperNode signs them, ``ago`` seconds ago."""
    from base64 import b64encode
    from datetime import UTC, datetime

    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

    timestamp = datetime.fromtimestamp(time.time() - ago, UTC).isoformat()
    return {
        "content-type": "application/protobuf",
        "flwr-public-key": b64encode(public_key_to_bytes(public)).decode(),
        "flwr-timestamp": timestamp,
        "flwr-signature": b64encode(sign_message(private, timestamp.encode())).decode(),
    }
