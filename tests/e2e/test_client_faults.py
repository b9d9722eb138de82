"""A real client dies: a SuperNode is killed in training and comes back.

Round 2 loses it; it is started again at once, and round 3 has its client back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LocalFlower, tail
from flower_ist.runs.log import RunLogError, read_run
from flower_ist.runs.ports import free_port
from flower_ist.tokens.shard import open_shard

pytestmark = [pytest.mark.slow, pytest.mark.long]

# Flower's heartbeat is 30 s and two of them may be missed; the machine may be busy.
PATIENCE = 240.0


class Federation:
    """Three SuperNodes with a shard each, and one run over them."""

    def __init__(self, flower: LocalFlower, blobs: Path, folder: Path) -> None:
        self.flower, self.blobs, self.folder = flower, blobs, folder
        self.run = folder / "run"
        self.nodes = [self.start(k) for k in range(3)]
        self.run_id = flower.submit(
            find_app(),
            {
                "data-dir": str(blobs),
                "output-dir": str(self.run),
                "num-rounds": 3,
                "hidden-width": 300,
                "local-steps": 300,
                "min-available-nodes": 3,
                "min-train-nodes": 2,
                "node-timeout": 120.0,
                "round-timeout": PATIENCE,
                "standardize": False,
                "replay": False,
                "lda-skip": False,
            },
        )

    def start(self, client: int) -> subprocess.Popen[bytes]:
        """Start a client's SuperNode; another call starts it again, as systemd would."""
        command = ["flower-supernode", "--insecure", "--superlink", self.flower.address]
        command += ["--port", str(free_port())]
        command += ["--node-config", f"data-path='{self.blobs / f'client-{client}'}'"]
        return self.flower.start(command, self.folder / f"supernode-{client}.log")

    def rounds_done(self) -> int:
        try:
            return len(read_run(self.run)) - 1
        except RunLogError:  # there is no log yet, or nothing in it
            return -1

    def wait_for(self, what: str, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_there():
            log = tail(self.flower.log_file)
            assert time.monotonic() < deadline, f"{what} did not come about:\n{log}"
            time.sleep(0.1)

    def client_processes(self, node: subprocess.Popen[bytes]) -> list[int]:
        """Return the processes that run a ClientApp for a SuperNode."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,pgid=,args="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        return [
            int(pid)
            for pid, group, command in rows
            if int(group) == node.pid and "flwr-clientapp" in command
        ]


def test_the_run_goes_on_without_a_killed_client_and_with_it_again(
    blobs: Path, tmp_path: Path
) -> None:
    with LocalFlower(simulation=False) as flower:
        federation = Federation(flower, blobs, tmp_path)
        last = federation.nodes[-1]

        federation.wait_for("round 1", lambda: federation.rounds_done() >= 1)
        federation.wait_for("training", lambda: bool(federation.client_processes(last)))
        os.killpg(last.pid, signal.SIGKILL)
        federation.start(2)

        flower.wait(federation.run_id, PATIENCE)

    rounds = read_run(federation.run)
    assert [line["clients_selected"] for line in rounds] == [0, 3, 3, 3]
    assert [line["clients_replied"] for line in rounds] == [0, 3, 2, 3]
    assert rounds[1]["failures"] == rounds[3]["failures"] == {}
    assert list(rounds[2]["failures"]) == ["client-2"]
    assert "Node Unavailable" in rounds[2]["failures"]["client-2"]
    for line in rounds[1:]:
        assert set(line["clients"]) == {"client-0", "client-1", "client-2"}
    # Three slices hold two thirds less of the weights between hidden layers; two, less again.
    assert rounds[2]["coverage"] < rounds[1]["coverage"] == rounds[3]["coverage"]

    # The model on disk is whole, and the one that the last line speaks of.
    written = sorted(file.name for file in federation.run.iterdir() if file.is_file())
    assert not [name for name in written if name.endswith(".tmp")]
    accuracy, loss = evaluate_arrays(
        load_file(federation.run / "model.safetensors"), open_shard(blobs / "test")
    )
    assert (accuracy, loss) == pytest.approx((rounds[3]["accuracy"], rounds[3]["loss"]), rel=1e-6)
