"""Devices that only wake to train: they come and go by a timer, and the federation goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flower_ist.deploy.plan import DeploymentPlan
from flower_ist.deploy.writer import write_deployment
from flower_ist.runs.log import read_run
from tests.e2e.test_secured_deployment import ENVIRONMENT, PATIENCE, free_ports
from tests.fakes import ROOT
from tests.fakes.secured import Shell

pytestmark = [pytest.mark.slow, pytest.mark.long]

NODES = 3
ROUNDS = 4


def test_nodes_on_duty_train_when_they_meet(blobs: Path, tmp_path: Path) -> None:
    """Awake for 60 s of every 75 s, one of them only at every second duty: a late joiner.

    A loop stands in for systemd's timer. The server waits for a duty, closes a round when each
    slice is back, and counts who sleeps as silent.
    """
    port = free_ports(3 + NODES)
    shards = tuple(str(blobs / f"client-{number}") for number in range(NODES))
    plan = DeploymentPlan(
        ("127.0.0.1",), shards, port, port + 1, "edge", "1.41.0", duty="1 min every 2 min"
    )
    write_deployment(plan, tmp_path / "lab")
    environment = {
        **ENVIRONMENT,
        "FLWR_HOME": str(tmp_path / "flwr"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    settings = (
        f"num-rounds={ROUNDS} min-available-nodes=2 min-train-nodes=1 num-slices=2 "
        "close-early=true node-timeout=300.0 round-timeout=45.0 local-steps=5 hidden-width=64 "
        f"data-dir='{blobs}' output-dir='{tmp_path}/run'"
    )
    with Shell(tmp_path, environment) as shell:
        shell.run(
            'mkdir -p "$FLWR_HOME"; cp lab/connection.toml "$FLWR_HOME/config.toml"\n'
            "lab/superlink/start-superlink.sh > superlink.log 2>&1 &\n"
            "lab/superlink/start-gateway.sh > gateway.log 2>&1 &\n"
            "until flwr supernode list edge; do sleep 2; done\n"
            'for key in lab/nodes/*/node.pub; do flwr supernode register "$key" edge; done\n'
            "duty() {\n"
            "    while true; do\n"
            f"        AWAKE_SECONDS=60 lab/nodes/node-$1/start.sh >> node-$1.log 2>&1\n"
            "        sleep $2\n"
            "    done\n"
            "}\n"
            "duty 0 15 & duty 1 15 &\n"
            "(sleep 30; duty 2 90) &\n"
            f'flwr run "{ROOT}" edge --stream --run-config "{settings}"',
            PATIENCE,
        )
        answer = shell.run("flwr list edge --format json", PATIENCE)
    assert '"finished:completed"' in answer
    rounds = read_run(tmp_path / "run")
    assert [line["round"] for line in rounds] == list(range(ROUNDS + 1))
    # In each round somebody has trained, and over the run more than one duty was needed.
    assert all(line["clients_replied"] >= 1 for line in rounds[1:])
    log = (tmp_path / "node-0.log").read_text()
    assert log.count("SuperNode ID") >= 1
