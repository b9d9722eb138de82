"""Start what docs/deploying.md starts: SuperLink, gateway and honest nodes with TLS and keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from flower_ist.deploy.plan import DeploymentPlan, shard_paths
from flower_ist.deploy.writer import write_deployment
from flower_ist.runs.log import read_run
from flower_ist.runs.ports import free_port
from flower_ist.tokens import demo
from flower_ist.tokens.shard import client_folder, test_folder
from flower_ist.tokens.writer import ShardWriter

CHECKOUT = Path(__file__).resolve().parents[2]
_PATIENCE = 300.0


@dataclass(frozen=True)
class Run:
    """How a run ended.

    Attributes:
        status: such as finished:completed.
        rounds: the lines of its log.
        seconds: from its submission to its end.
    """

    status: str
    rounds: list[dict[str, Any]]
    seconds: float


class Federation:
    """A SuperLink behind its gateway, and nodes of which some are honest.

    Args:
        folder: an empty one for everything that is written.
        nodes: how many keys are registered, the hostile ones last.
        honest: of how many a SuperNode is started.

    Attributes:
        port: of the gateway.
        lab: what ``flower-ist deploy init`` has written.
    """

    def __init__(self, folder: Path, nodes: int, honest: int) -> None:
        self.folder, self.nodes, self.honest = folder, nodes, honest
        self.port = free_port(3 + nodes)
        self.lab = folder / "lab"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(CHECKOUT), os.getenv("PYTHONPATH")))),
            "FLWR_HOME": str(folder / "flwr"),
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }

    def __enter__(self) -> Self:
        with ExitStack() as failed:
            failed.callback(self._stop)
            self._write()
            self.start("superlink", "superlink/start-superlink.sh")
            self.start("gateway", "superlink/start-gateway.sh")
            self._wait_for_superlink()
            for number in range(self.nodes):
                self.flwr("supernode", "register", str(self.node(number) / "node.pub"), "edge")
            for number in range(self.honest):
                self.start(f"node-{number}", f"nodes/node-{number}/start.sh")
            self._wait_until(lambda: self.online() >= self.honest)
            failed.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def node(self, number: int) -> Path:
        """Return a node's folder."""
        return self.lab / "nodes" / f"node-{number}"

    @property
    def shards(self) -> Path:
        """Where all clients' tokens are."""
        return self.folder / "shards"

    def start(self, name: str, script: str) -> None:
        """Start one of the deployment's scripts; its output is in ``NAME.log``."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(self.lab / script)],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def memory(self, name: str) -> float:
        """Return the largest resident memory that a process has had, in MiB."""
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def flwr(self, *arguments: str) -> str:
        """Run one of the operator's commands and return what it printed."""
        done = subprocess.run(
            ["flwr", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=_PATIENCE,
        )
        return done.stdout

    def online(self) -> int:
        """Return how many nodes the SuperLink takes for online."""
        nodes = self._ask("supernode", "list", "edge")["nodes"]
        return sum(node["status"] == "online" for node in nodes)

    def run(self, settings: Mapping[str, Any], patience: float = 600.0) -> Run:
        """Run the app and wait for its end."""
        output = self.folder / f"run-{time.time_ns()}"
        config = {"data-dir": str(self.shards), "output-dir": str(output), **settings}
        words = [f"--run-config={key}={json.dumps(value)}" for key, value in config.items()]
        start = time.monotonic()
        run_id = self._ask("run", str(CHECKOUT), "edge", *words)["run-id"]
        status = ""
        while not status.startswith("finished") and time.monotonic() - start < patience:
            time.sleep(2.0)
            status = self._ask("list", "edge", "--run-id", str(run_id))["runs"][0]["status"]
        rounds = read_run(output) if (output / "run.jsonl").exists() else []
        return Run(status, rounds, time.monotonic() - start)

    def _ask(self, *arguments: str) -> dict[str, Any]:
        answer = self.flwr(*arguments, "--format", "json")
        return dict(json.loads(answer[answer.find("{") :]))

    def _write(self) -> None:
        shards = [demo.train_shard(client, self.nodes) for client in range(self.nodes)]
        folders = [client_folder(self.shards, n) for n in range(self.nodes)]
        for path, shard in zip(
            (*folders, test_folder(self.shards)), (*shards, demo.test_shard()), strict=True
        ):
            path.parent.mkdir(exist_ok=True)
            with ShardWriter(path, shard.meta) as writer:
                writer.append_shard(shard)
        from importlib.metadata import version

        plan = DeploymentPlan(
            hosts=("127.0.0.1",),
            node_data=shard_paths(self.shards, self.nodes),
            port=self.port,
            control_port=self.port + 1,
            name="edge",
            flower_version=version("flwr"),
        )
        write_deployment(plan, self.lab)
        home = self.folder / "flwr"
        home.mkdir()
        (home / "config.toml").write_text((self.lab / "connection.toml").read_text())

    def _wait_for_superlink(self) -> None:
        url = f"https://127.0.0.1:{self.port + 1}/health"
        trusted = httpx.create_ssl_context()
        trusted.load_verify_locations(self.lab / "ca/ca.crt")

        def answers() -> bool:
            with suppress(httpx.HTTPError):
                return httpx.get(url, verify=trusted, trust_env=False).status_code == 200
            return False

        self._wait_until(answers)

    def _wait_until(self, reached: Any) -> None:
        end = time.monotonic() + _PATIENCE
        while not reached():
            if time.monotonic() > end:
                raise TimeoutError(f"The federation in {self.folder} did not start.")
            time.sleep(0.5)

    def _stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes.values():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            if number is signal.SIGTERM:
                time.sleep(2.0)
        for process in self.processes.values():
            process.wait(10)
