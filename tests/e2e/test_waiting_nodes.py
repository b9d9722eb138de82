"""Nodes that wait for work: what their line carries, and how many a gateway holds."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvicorn
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
)
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flower_ist.deploy.certificates import make_authority, make_server_certificate
from flower_ist.deploy.plan import DeploymentPlan
from flower_ist.deploy.writer import write_deployment
from flower_ist.runs.ports import free_port
from tests.e2e.test_secured_deployment import ENVIRONMENT, PATIENCE
from tests.fakes import ROOT
from tests.fakes.secured import CountingProxy, Shell

pytestmark = [pytest.mark.slow, pytest.mark.long]

MESSAGE = PullMessagesResponse(message_object_trees=[{"object_id": "a"}]).SerializeToString()
DAY = 86_400


def test_an_idle_node_pays_at_most_3_mb_a_day(blobs: Path, tmp_path: Path) -> None:
    """Two real SuperNodes wait for work for six minutes; a proxy counts, and so does the gateway.

    Six minutes hold more than one whole question (4.5 minutes) and its successor.
    """
    port = free_port(5)
    shards = tuple(str(blobs / f"client-{number}") for number in range(2))
    plan = DeploymentPlan(("127.0.0.1",), shards, port, port + 1, "edge", "1.41.0")
    write_deployment(plan, tmp_path / "lab")
    environment = {
        **ENVIRONMENT,
        "FLWR_HOME": str(tmp_path / "flwr"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    minutes = 6.0
    with Shell(tmp_path, environment) as shell, CountingProxy(port) as proxy:
        shell.run(
            'mkdir -p "$FLWR_HOME"; cp lab/connection.toml "$FLWR_HOME/config.toml"\n'
            "lab/superlink/start-superlink.sh > superlink.log 2>&1 &\n"
            "lab/superlink/start-gateway.sh > gateway.log 2>&1 &\n"
            "until flwr supernode list edge; do sleep 2; done\n"
            'for key in lab/nodes/*/node.pub; do flwr supernode register "$key" edge; done\n'
            f"export SUPERLINK=127.0.0.1:{proxy.port}\n"
            "for node in 0 1; do lab/nodes/node-$node/start.sh > node-$node.log 2>&1 & done",
            PATIENCE,
        )
        online = "flwr supernode list edge --format json"
        while shell.run(online, PATIENCE).count('"online"') < 2:
            time.sleep(1.0)
        time.sleep(10.0)
        before = proxy.bytes_to_clients + proxy.bytes_to_server
        start = time.monotonic()
        time.sleep(60 * minutes)
        carried = proxy.bytes_to_clients + proxy.bytes_to_server - before
        a_day = carried / (time.monotonic() - start) * DAY / 2
        # The SuperLink still takes them for online: their heartbeats were repeated.
        assert shell.run(online, PATIENCE).count('"online"') == 2
        # The nodes first: what they send to a gateway that has ended, nobody counts but the proxy.
        shell.run("kill %3 %4; wait %3 %4 || true; sleep 2; kill $(jobs -p); wait", PATIENCE)
    print(f"An idle node: {a_day / 1e6:.2f} MB a day.")
    assert a_day <= 3e6
    books = json.loads((tmp_path / "lab/superlink/state/socket-bytes.json").read_text())
    for way, counted in enumerate((proxy.bytes_to_clients, proxy.bytes_to_server)):
        nodes = sum(kind[way] for node in books["nodes"].values() for kind in node.values())
        assert nodes + books["strangers"][way] == pytest.approx(counted, rel=0.01)


class FewMessages:
    """A SuperLink's Fleet API with TLS that has a message for a node only when it is told to."""

    def __init__(self) -> None:
        self.ids: dict[bytes, int] = {}
        self.has_messages = False
        self.given: set[int] = set()
        self.app = Starlette(routes=[Route("/v1/fleet/{call}", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        body, content = await request.body(), b""
        if request.path_params["call"] == "activate-node":
            key = ActivateNodeRequest.FromString(body).public_key
            node_id = self.ids.setdefault(key, 2**63 + len(self.ids))
            content = ActivateNodeResponse(node_id=node_id).SerializeToString()
        elif self.has_messages:
            node_id = PullMessagesRequest.FromString(body).node.node_id
            if node_id not in self.given:
                self.given.add(node_id)
                content = MESSAGE
        return Response(content, media_type="application/protobuf")


@contextmanager
def served(app: Starlette, folder: Path, port: int) -> Iterator[None]:
    config = uvicorn.Config(
        app,
        port=port,
        log_level="error",
        ws="none",
        ssl_certfile=str(folder / "server.crt"),
        ssl_keyfile=str(folder / "server.key"),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.mark.parametrize("waiting", [20, 200])
def test_nodes_wait_at_one_gateway_and_all_get_their_message(tmp_path: Path, waiting: int) -> None:
    """Half of 20 have it within a second. For 200, how fast depends on what else the machine does.

    Their messages are there at once, and the SuperLink, all nodes and the gateway share two cores.
    """
    authority = make_authority("test")
    server = make_server_certificate(authority, ["127.0.0.1"])
    for name, content in (
        ("ca.crt", authority.certificate),
        ("server.crt", server.certificate),
        ("server.key", server.private_key),
    ):
        (tmp_path / name).write_bytes(content)
    superlink, port, behind = FewMessages(), free_port(), free_port()
    command = [sys.executable, "-m", "flower_ist.deploy.gateway"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--superlink", f"127.0.0.1:{behind}"]
    command += ["--ca", str(tmp_path / "ca.crt")]
    command += ["--certificate", str(tmp_path / "server.crt")]
    command += ["--key", str(tmp_path / "server.key")]
    answers: list[tuple[int, float]] = []
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with ExitStack() as stack:
        stack.enter_context(served(superlink.app, tmp_path, behind))
        log = stack.enter_context((tmp_path / "log").open("wb"))
        gateway = subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
        stack.callback(gateway.wait, 30)
        stack.callback(gateway.send_signal, signal.SIGTERM)

        def wait_for_work() -> None:
            private, public = generate_key_pairs()
            client = FleetHttpClient(
                f"https://127.0.0.1:{port}",
                interceptors=[NodeAuthHttpInterceptor(private, public)],
                verify=trusted,
            )
            with client:
                activate = ActivateNodeRequest(
                    public_key=public_key_to_bytes(public), heartbeat_interval=30
                )
                for _ in range(60):  # until the gateway listens
                    try:
                        node_id = client.ActivateNode(activate).node_id
                        break
                    except Exception:
                        time.sleep(0.5)
                request = PullMessagesRequest()
                request.node.node_id = node_id
                answer = client.PullMessages(request)
                assert answer.SerializeToString() == MESSAGE
                answers.append((node_id, time.monotonic()))

        threads = [threading.Thread(target=wait_for_work, daemon=True) for _ in range(waiting)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 300
        while len(superlink.ids) < waiting and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(10.0)  # all of them are waiting now
        assert answers == []
        superlink.has_messages = True
        there_at = time.monotonic()
        for thread in threads:
            thread.join(300)
        status = Path(f"/proc/{gateway.pid}/status").read_text().splitlines()
        (peak,) = (int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    seconds = sorted(at - there_at for _, at in answers)
    print(f"{len(answers)} nodes: half after {seconds[len(seconds) // 2]:.2f} s, {peak:.0f} MiB.")
    assert {node_id for node_id, _ in answers} == set(superlink.ids.values())
    assert len(answers) == waiting
    assert waiting > 20 or seconds[waiting // 2] <= 1.0
    assert peak <= 150
