"""Devices that only wake to train: all fall asleep in a round, and the run goes on when they wake.

A timer would end them after so many seconds, which on a slow machine might be before they have done
anything. Here they go when a round has begun, in the way in which the timer ends them, and wake
some seconds later.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flower_ist.deploy import watched
from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LocalFlower, tail
from flower_ist.runs.log import read_run
from flower_ist.runs.ports import free_port

pytestmark = pytest.mark.long

PATIENCE = 240.0
ROUNDS = 5
LOST = 3
ASLEEP_SECONDS = 5.0


def test_all_devices_sleep_in_a_round(blobs: Path, tmp_path: Path) -> None:
    """Two SuperNodes, started again with other node ids and the same data."""
    run = tmp_path / "run"
    with LocalFlower(simulation=False) as flower:

        def wake(client: int) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", watched.MODULE, "--awake", "3600", "flower-supernode"]
            command += ["--insecure", "--superlink", flower.address, "--port", str(free_port())]
            command += ["--node-config", f"data-path='{blobs / f'client-{client}'}'"]
            return flower.start(command, tmp_path / f"supernode-{client}.log")

        def messages() -> int:
            log = (tmp_path / "supernode-0.log").read_text(errors="replace")
            return log.count("Receiving: train message")

        devices = [wake(client) for client in range(2)]
        config = {
            "data-dir": str(blobs),
            "output-dir": str(run),
            "num-rounds": ROUNDS,
            "hidden-width": 64,
            "node-timeout": PATIENCE,
            "round-timeout": PATIENCE,
        }
        run_id = flower.submit(find_app(), config)
        deadline = time.monotonic() + PATIENCE
        # The first message to train asks for statistics.
        while messages() < 1 + LOST:
            assert time.monotonic() < deadline, f"No round {LOST}:\n{tail(flower.log_file)}"
            time.sleep(0.05)
        for device in devices:
            device.send_signal(signal.SIGTERM)
        for device in devices:
            assert device.wait(60) == 0
        time.sleep(ASLEEP_SECONDS)
        devices = [wake(client) for client in range(2)]
        flower.wait(run_id, 2 * PATIENCE)

    rounds = read_run(run)
    replied = [line["clients_replied"] for line in rounds[1:]]
    assert replied == [2] * (LOST - 1) + [0] + [2] * (ROUNDS - LOST)
    assert rounds[LOST]["accuracy"] == rounds[LOST - 1]["accuracy"]
    assert rounds[LOST]["failures"].keys() == {"client-0", "client-1"}
    # They are known again, and their training goes on.
    assert rounds[-1]["clients"].keys() == {"client-0", "client-1"}
    assert rounds[-1]["loss"] != rounds[LOST]["loss"]
