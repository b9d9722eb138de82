"""What a device fetches of the app for a run, and what it says if its library is another."""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LaunchError, LocalFlower
from flower_ist.runs.ports import free_port
from tests.fakes import ROOT

pytestmark = pytest.mark.long


class Tap:
    """A TCP proxy in front of a SuperLink without TLS, which measures the answers with the bundle.

    Attributes:
        port: on the loopback address.
        fetched: bytes of each answer to a request for the bundle, headers included.
    """

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.fetched: list[int] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        asked = False
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and b"POST /v1/" in data:
                        asked = b"POST /v1/fleet/get-fab" in data
                        self.fetched += [0] * asked
                    elif source is server and asked:
                        self.fetched[-1] += len(data)
                    (client if source is server else server).sendall(data)


def settings(folder: Path) -> dict[str, Any]:
    one = {"min-train-nodes": 1, "min-available-nodes": 1}
    return {
        "strategy": "ridge",
        "num-rounds": 1,
        **one,
        "node-timeout": 300.0,
        "output-dir": str(folder),
    }


def start_node(flower: LocalFlower, port: int, log: Path) -> None:
    node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
    node += ["--port", str(free_port()), "--node-config", "partition-id=0 num-partitions=4"]
    flower.start(node, log)


def test_a_node_fetches_a_small_bundle_and_again_for_each_run(tmp_path: Path) -> None:
    """Flower keeps no bundle by its hash: what is saved has to be saved on its size.

    If this fails because a bundle was fetched once, Flower has begun to keep it: then say so in
    docs/measuring.md.
    """
    with LocalFlower(simulation=False) as flower, Tap(flower.address) as tap:
        start_node(flower, tap.port, tmp_path / "node.log")
        for run in ("first", "second"):
            flower.wait(flower.submit(find_app(), settings(tmp_path / run)), 600)
    assert len(tap.fetched) == 2
    assert all(10_000 < size <= 25_000 for size in tap.fetched)


def test_a_device_with_another_library_is_named_with_the_command_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is patched there stands for a release that was installed on the device long ago."""
    old = tmp_path / "old"
    old.mkdir()
    (old / "sitecustomize.py").write_text(
        "import flower_ist.version\nflower_ist.version.__version__ = '0.0.9'\n"
    )
    with LocalFlower(simulation=False) as flower:
        with monkeypatch.context() as patched:
            patched.setenv("PYTHONPATH", os.pathsep.join([str(old), str(ROOT)]))
            start_node(flower, int(flower.address.split(":")[1]), tmp_path / "node.log")
        # The server waits this long for a client that can take part.
        wait = {"node-timeout": 100.0}
        run_id = flower.submit(find_app(), {**settings(tmp_path / "run"), **wait})
        with pytest.raises(LaunchError) as caught:
            flower.wait(run_id, 600)
    assert "this machine has 0.0.9: on the server and on every device, pip install" in str(
        caught.value
    )
