"""docs/deploying.md, followed word for word on loopback: TLS, node keys, two SuperNodes.

Strangers knock while the federation trains: one with a key that nobody registered, one without TLS,
and one that wants to give orders. What they get to see is counted byte by byte.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from flower_ist.deploy.certificates import make_node_key
from flower_ist.runs.log import read_run
from flower_ist.runs.ports import free_port
from tests.fakes import ROOT
from tests.fakes.secured import CountingProxy, Shell, code_blocks, with_values

pytestmark = [pytest.mark.slow, pytest.mark.long]

DOCUMENT = ROOT / "docs" / "deploying.md"
NODES = 2
PROGRAMS = Path(sys.executable).parent
# A busy machine may take ten times what an idle one does: only a hang must end these waits.
PATIENCE = 600.0
ENVIRONMENT = {
    # A SuperNode looks for Flower's other programs on the path.
    "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


@contextmanager
def stranger(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A SuperNode that was not invited, with its log in ``folder/log``."""
    folder.mkdir()
    command = [str(PROGRAMS / "flower-supernode"), "--port", str(free_port()), *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **ENVIRONMENT, "FLWR_HOME": str(folder)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def give_orders(port: int, authority: Path) -> list[int]:
    """Ask the devices' port for what only the operator may do, and return the answers' status."""
    trusted = ssl.create_default_context(cafile=str(authority))
    calls = ("control/start-run", "control/register-node", "control/list-runs", "runtime/get-run")
    with httpx.Client(verify=trusted, trust_env=False) as client:
        return [
            client.post(f"https://127.0.0.1:{port}/v1/{call}", content=b"").status_code
            for call in calls
        ]


def test_the_document_makes_a_federation_that_strangers_cannot_enter(tmp_path: Path) -> None:
    work = tmp_path / "federation"
    port = free_port(3 + NODES)
    settings, *blocks = code_blocks(DOCUMENT, "bash")
    settings = with_values(
        settings,
        {
            "APP": str(ROOT),
            "WORK": str(work),
            "PORT": str(port),
            "NODES": str(NODES),
            "RUN": "\"num-rounds=4 wire-dtype='int8'\"",
            "FLWR_HOME": str(tmp_path / "flwr-home"),
        },
    )
    (devices,) = (number for number, block in enumerate(blocks) if "start.sh" in block)
    (train,) = (number for number, block in enumerate(blocks) if "flwr run" in block)
    lab = work / "lab"
    with ExitStack() as stack:
        shell = stack.enter_context(Shell(tmp_path, ENVIRONMENT))
        shell.run(settings, PATIENCE)
        for block in blocks[:devices]:
            shell.run(block, PATIENCE)
        # The devices' line has a counter of this test's own; the gateway's has to agree with it.
        line = stack.enter_context(CountingProxy(port))
        shell.run(f"export SUPERLINK=127.0.0.1:{line.port}", PATIENCE)
        for block in blocks[devices:train]:
            shell.run(block, PATIENCE)

        key = tmp_path / "stranger.key"
        key.write_bytes(make_node_key("stranger").private)
        door, plain_door = (stack.enter_context(CountingProxy(port)) for _ in range(2))
        data = ("--node-config", f"data-path='{work / 'shards' / 'client-0'}'")
        keyed = (
            *("--root-certificates", str(lab / "ca/ca.crt")),
            *("--auth-supernode-private-key", str(key)),
        )
        with_key = stack.enter_context(
            stranger(
                tmp_path / "unregistered",
                *("--superlink", f"127.0.0.1:{door.port}", *keyed, *data),
            )
        )
        without_tls = stack.enter_context(
            stranger(
                tmp_path / "plain",
                *("--superlink", f"127.0.0.1:{plain_door.port}", "--insecure", *data),
            )
        )
        shell.run(blocks[train], PATIENCE)
        assert give_orders(port, lab / "ca/ca.crt") == [404] * 4
        answer = shell.run("flwr list edge --format json", PATIENCE)

        # The one with a key was told no and has ended; the other still tries, or has given up.
        assert with_key.wait(60) != 0
        assert "Failed to initialize the connection" in (tmp_path / "unregistered/log").read_text()
        assert without_tls.poll() != 0
        assert door.connections > 0
        assert plain_door.connections > 0
        # A certificate and a refusal; a broken handshake. A slice alone is 73 kB.
        assert door.bytes_to_clients < 10_000
        assert plain_door.bytes_to_clients < 1_000 * plain_door.connections
        for log in (tmp_path / "unregistered/log", tmp_path / "plain/log"):
            assert "SuperNode ID" not in log.read_text()
            assert "Receiving" not in log.read_text()

        for block in blocks[train + 1 :]:
            shell.run(block, PATIENCE)

    (run,) = json.loads(answer[answer.find("{") :])["runs"]
    assert run["status"] == "finished:completed"
    rounds = read_run(work / "run")
    assert [line["clients_replied"] for line in rounds] == [NODES] * 5  # round 0: statistics
    assert {len(line["clients"]) for line in rounds} == {NODES}
    # Each client is sent more than this, so the strangers have not seen a slice. In int8 one of 512
    # neurons takes 512 (128 + 2) + 2*512 + 10 (512 + 2) + 2*10 = 72,744 B. The prior would take
    # 14,736 B, and is compressed to more than a third of that.
    assert min(c["wire_bytes_down"] for c in rounds[1]["clients"].values()) > 72_744 + 14_736 / 3
    # Before the first round ridge predicts, and a net that knows nothing; what it learns comes on
    # top.
    assert rounds[-1]["accuracy"] > rounds[0]["accuracy"] + 0.01
    # Flower's own counter in the SuperLink is the check of ours; a gateway does not change it. It
    # also counts what is asked and answered around the messages, which does not shrink with them:
    # 25 kB were 0.5 % of this run in float32.
    traffic = run["network-traffic"]
    ours_down = sum(line["wire_bytes_down"] for line in rounds)
    ours_up = sum(line["wire_bytes_up"] for line in rounds)
    assert ours_down == pytest.approx(traffic["outbound-bytes"], abs=25_000)
    assert ours_up == pytest.approx(traffic["inbound-bytes"], abs=25_000)
    check_socket_bytes(lab, rounds, line)
    for closed in range(port, port + 3):
        wait_until_closed(closed)


def check_socket_bytes(lab: Path, rounds: list[dict[str, Any]], line: CountingProxy) -> None:
    """What the gateway has counted is what crossed the line, and the run log has its part."""
    books = json.loads((lab / "superlink/state/socket-bytes.json").read_text())["nodes"]
    assert len(books) == NODES
    for way, name, carried in (
        (0, "down", line.bytes_to_clients),
        (1, "up", line.bytes_to_server),
    ):
        counted = {
            kind: sum(node[kind][way] for node in books.values())
            for kind in next(iter(books.values()))
        }
        assert sum(counted.values()) == pytest.approx(carried, rel=0.01)
        logged = sum(entry[f"socket_bytes_{name}"] for entry in rounds)
        by_client = sum(
            client[f"socket_bytes_{name}"]
            for entry in rounds
            for client in entry["clients"].values()
        )
        metered = sum(entry[f"wire_bytes_{name}"] for entry in rounds)
        assert logged == by_client
        # What was paid before and after the run is not in its log.
        assert metered < logged <= sum(counted.values())
        assert counted["messages"] > metered
        # The whole line: the app's bundle, handshakes, headers, and waiting before and after.
        assert carried <= 1.10 * metered
        print(f"{name}: {carried} B on the line, {metered} B metered, {counted}")


def wait_until_closed(port: int) -> None:
    """The document's last command stopped what it had started."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.5)
    pytest.fail(f"port {port} is still open")
