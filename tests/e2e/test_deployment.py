"""A real deployment on loopback: a SuperLink, two SuperNodes with a shard each, two rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LocalFlower
from flower_ist.runs.log import read_run
from flower_ist.runs.ports import free_port

pytestmark = pytest.mark.slow


def test_two_supernodes_with_their_own_shards(blobs: Path, tmp_path: Path) -> None:
    with LocalFlower(simulation=False) as flower:
        for client in range(2):
            command = ["flower-supernode", "--insecure", "--superlink", flower.address]
            command += ["--port", str(free_port())]
            command += ["--node-config", f"data-path='{blobs / f'client-{client}'}'"]
            flower.start(command, tmp_path / f"supernode-{client}.log")
        config = {
            "data-dir": str(blobs),
            "output-dir": str(tmp_path / "run"),
            "num-rounds": 2,
            "hidden-width": 2048,
            "hidden-layers": 2,
            "cut": "all",
            "local-steps": 5,
            "node-timeout": 90.0,
        }
        run_id = flower.submit(find_app(), config)
        flower.wait(run_id, 300)
        traffic = flower.run_facts(run_id)["network-traffic"]

    rounds = read_run(tmp_path / "run")
    assert [line["clients_replied"] for line in rounds] == [2, 2, 2]  # round 0: statistics
    assert set(rounds[1]["clients"]) == {"client-0", "client-1"}

    # Flower's own counter in the SuperLink is the check of ours. It also counts what is asked and
    # answered around the messages: 8 kB here. A slice in compact takes ten times that.
    assert min(line["payload_bytes_up"] for line in rounds[1:]) > 2 * 80_000
    ours_down = sum(line["wire_bytes_down"] for line in rounds)
    ours_up = sum(line["wire_bytes_up"] for line in rounds)
    assert ours_down == pytest.approx(traffic["outbound-bytes"], abs=25_000)
    assert ours_up == pytest.approx(traffic["inbound-bytes"], abs=25_000)
