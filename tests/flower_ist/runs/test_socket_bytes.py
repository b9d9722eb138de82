"""The bytes of the devices' lines come from the gateway into the run log and the report."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from flower_ist.runs.device_bytes import device_bytes, device_table
from flower_ist.runs.socket_bytes import (
    GATEWAY_VARIABLE,
    SocketBytes,
    node_fields,
    socket_fields,
)


class Books(BaseHTTPRequestHandler):
    content: Any = None

    def do_GET(self) -> None:
        content = json.dumps(type(self).content).encode()
        self.send_response(200 if self.path == "/bytes" else 404)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Books) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(30)


def test_a_round_pays_what_came_since_the_last(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GATEWAY_VARIABLE, address)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    Books.content = {"nodes": {"7": {"bundle": [100, 1], "messages": [10, 20]}}}
    lines = SocketBytes.from_environment()
    Books.content = {
        "nodes": {
            "7": {"bundle": [100, 1], "messages": [15, 27]},
            str(2**63 + 5): {"bundle": [50, 2], "messages": [0, 0]},
        }
    }
    since = lines.since_last()
    assert since == {
        7: {"bundle": (0, 0), "messages": (5, 7)},
        2**63 + 5: {"bundle": (50, 2), "messages": (0, 0)},
    }
    assert socket_fields(since) == {
        "socket_bytes_down": 55,
        "socket_bytes_up": 9,
        "socket_bytes": {"bundle": [50, 2], "messages": [5, 7]},
    }
    assert node_fields(since[7]) == {"socket_bytes_down": 5, "socket_bytes_up": 7}
    again = lines.since_last()
    assert again is not None
    assert socket_fields(again)["socket_bytes_down"] == 0


@pytest.mark.parametrize("content", [None, [], {"nodes": {"x": {}}}, {"nodes": {"1": {"a": [1]}}}])
def test_a_gateway_that_tells_nonsense_ends_no_run(address: str, content: Any) -> None:
    Books.content = content
    assert SocketBytes(address).since_last() is None


@pytest.mark.parametrize("address", ["", "127.0.0.1:1"])
def test_without_a_gateway_nothing_is_logged(address: str) -> None:
    since = SocketBytes(address).since_last()
    assert since is None
    assert socket_fields(since) == {}
    assert node_fields(None) == {}


def line(server_round: int, wire: tuple[int, int], **kinds: tuple[int, int]) -> dict[str, Any]:
    return {
        "round": server_round,
        "clients": {"a": {}, "b": {}},
        "wire_bytes_down": wire[0],
        "wire_bytes_up": wire[1],
        "socket_bytes": kinds,
    }


def test_the_report_says_what_a_device_pays() -> None:
    rounds = [
        line(0, (10, 700), bundle=(2000, 20), messages=(100, 800), handshakes=(30, 10)),
        line(1, (500, 400), messages=(600, 440), waiting=(4, 6)),
        line(2, (500, 400), messages=(600, 460), waiting=(4, 6)),
    ]
    assert device_bytes(rounds) == {
        "app bundle": (2000, 20),
        "before the first round": (100, 800),
        "rounds": (1200, 900),
        "waiting and handshakes": (38, 22),
        "in all": (3338, 1742),
        "messages alone": (1010, 1500),
    }
    table = device_table("run", rounds)
    assert table is not None
    # Of two devices: 3,338 B are 1.7 kB each.
    assert list(table.columns[1].cells) == ["1.0", "0.1", "0.6", "0.0", "1.7", "0.5"]


def test_a_log_without_a_gateway_has_no_such_table() -> None:
    assert device_table("run", [{"round": 0, "clients": {"a": {}}}]) is None
