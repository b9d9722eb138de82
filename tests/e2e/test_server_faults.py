"""The server dies in the middle of a round, SuperLink and ServerApp at once; the run is resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.runs.app import run_in_process
from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LocalFlower
from flower_ist.runs.log import RUN_LOG, RunLogError, read_run
from flower_ist.runs.ports import free_port
from server_app.app import app as server_app

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROUNDS = 3


class LastingFlower(LocalFlower):
    """A SuperLink whose state is in a file, and which can be killed and started again."""

    def start(self, command: list[str], log_file: Path) -> subprocess.Popen[bytes]:
        if command[0] == "flower-superlink":
            command = [*command, "--database", str(self.home / "superlink.db")]
        return super().start(command, log_file)

    def kill_server(self) -> None:
        """End the SuperLink and all that it started (-9), as a power cut would; nodes stay."""
        port = self.address.split(":")[1]
        while killed := [pid for pid, words in processes() if is_servers(words, port)]:
            for pid in killed:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)

    def restart(self) -> None:
        """Start the SuperLink again, with the same address and state."""
        host, port = self.address.split(":")
        self.start(
            ["flower-superlink", "--insecure", "--host", host, "--port", port], self.log_file
        )
        wait(self._is_healthy, 180)

    def _is_healthy(self) -> bool:
        url = f"http://{self.address}/health"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def processes() -> list[tuple[int, list[str]]]:
    """Return id and command line of every running process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            found.append((int(folder.name), words))
    # A process that has ended, but was not waited for, has no command line.
    return [(pid, words) for pid, words in found if any(words)]


def is_servers(words: list[str], port: str) -> bool:
    """Tell whether a command line is one of this server's programs, and not a SuperNode."""
    text = " ".join(words)
    mine = text.find(f":{port}") >= 0 or text.find(f"--port {port}") >= 0
    servers = ("flower-superlink", "flower-superexec", "flwr-serverapp")
    return mine and any(name in text for name in servers)


def wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def rounds_of(folder: Path) -> list[int]:
    try:
        return [line["round"] for line in read_run(folder)]
    except RunLogError:
        return []


def test_a_killed_server_is_started_again_and_the_run_goes_on(
    blobs: Path, tmp_path: Path, default_run_config: dict[str, Any]
) -> None:
    """Two nodes stay where they are; the new submission ends in the bits of a run in one piece.

    There are two clients: sums over more would depend on the order of their replies.
    """
    folder = tmp_path / "run"
    config = {
        "data-dir": str(blobs),
        "output-dir": str(folder),
        "resume": True,
        "num-rounds": ROUNDS,
        "hidden-width": 64,
        "local-steps": 5,
        "node-timeout": 300.0,
        "round-timeout": 300.0,
    }
    with LastingFlower(simulation=False) as flower:
        for client in range(2):
            command = ["flower-supernode", "--insecure", "--superlink", flower.address]
            command += ["--port", str(free_port())]
            command += ["--node-config", f"data-path='{blobs / f'client-{client}'}'"]
            flower.start(command, tmp_path / f"supernode-{client}.log")
        flower.submit(find_app(), config)
        wait(lambda: 1 in rounds_of(folder), 600)
        flower.kill_server()
        done = rounds_of(folder)
        assert done[-1] < ROUNDS
        flower.restart()
        run_id = flower.submit(find_app(), config)
        flower.wait(run_id, 600)

    lines = read_run(folder)
    assert [line["round"] for line in lines] == list(range(ROUNDS + 1))
    assert [line["clients_replied"] for line in lines[1:]] == [2] * ROUNDS
    (resumed,) = [line for line in lines if "resumed_after" in line]
    assert resumed["round"] == resumed["resumed_after"] + 1
    assert (folder / RUN_LOG).stat().st_size > 0

    other = tmp_path / "in-one-piece"
    whole = {**default_run_config, **config, "output-dir": str(other)}
    run_in_process(server_app, client_app, 2, whole)
    expected, found = (
        load_file(other / "model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert found[name].tobytes() == weight.tobytes()
