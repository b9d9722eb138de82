"""Seconds and bytes of a round in the deployment of docs/deploying.md, now and in an older commit.

    python benchmarks/round_latency.py [--before CHECKOUT] [--nodes 3] [--rounds 3] [--pairs 1]
        [--run "wire-dtype='compact'"]

Each deployment is real: the folder that ``flower-ist deploy init`` writes, gateway, TLS, node keys,
the demo's tokens, each step as the document of that checkout has it. Before and now take turns, so
that a busy machine is as busy for both. A round's seconds are those of the run log; ``select`` is
waiting for clients, ``train`` from sending to the last reply. At most 0.6 times as long as before
is what the gateway's held questions and the grid's quicker look for replies are for. Bytes are
those of the messages and, where the gateway counts them, of the devices' whole lines, from their
start to their end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from flower_ist.runs.ports import free_port

PARTS = ("select", "train", "merge", "evaluate")
PROGRAMS = Path(sys.executable).parent

# The steps of docs/deploying.md, with the checkout's own commands.
STEPS = """
trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
ist() { "$PYTHON" -W ignore -c 'from flower_ist.cli import app; app()' "$@"; }
cd "$WORK"
ist deploy demo-shards shards --nodes $NODES > steps.log
ist deploy init lab --nodes $NODES --host 127.0.0.1 --port $PORT --shards shards >> steps.log
lab/superlink/start-superlink.sh > superlink.log 2>&1 &
lab/superlink/start-gateway.sh > gateway.log 2>&1 &
mkdir -p "$FLWR_HOME"
cat lab/connection.toml >> "$FLWR_HOME/config.toml"
until flwr supernode list edge >> steps.log 2>&1; do sleep 2; done
for key in lab/nodes/*/node.pub; do flwr supernode register "$key" edge >> steps.log; done
for node in $(seq 0 $((NODES - 1))); do
    lab/nodes/node-$node/start.sh > node-$node.log 2>&1 &
done
flwr run "$APP" edge --stream \
    --run-config "num-rounds=$ROUNDS min-train-nodes=$NODES min-available-nodes=$NODES" \
    --run-config "local-steps=20 node-timeout=300.0 $RUN" \
    --run-config "data-dir='$WORK/shards' output-dir='$WORK/run'" > run.log 2>&1
"""


@dataclass
class Deployed:
    """What deployments of one checkout took.

    Attributes:
        seconds: of each round from round 1 on, by part.
        metered, line: bytes down and up, of the messages and of the devices' lines.
    """

    seconds: list[dict[str, float]] = field(default_factory=list)
    metered: list[int] = field(default_factory=lambda: [0, 0])
    line: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, rounds: list[dict[str, Any]], ledger: Path) -> None:
        """Add a run's log and the gateway's books, if there are any."""
        self.seconds += [line["seconds"] for line in rounds if line["round"]]
        nodes = json.loads(ledger.read_text())["nodes"].values() if ledger.exists() else []
        for way, name in enumerate(("wire_bytes_down", "wire_bytes_up")):
            self.metered[way] += sum(line[name] for line in rounds)
            self.line[way] += sum(kind[way] for node in nodes for kind in node.values())


def deploy(checkout: Path, options: argparse.Namespace, found: Deployed) -> None:
    """Deploy a checkout, train, and add what it took."""
    with tempfile.TemporaryDirectory() as name:
        environment = {
            **os.environ,
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(checkout),
            "APP": str(checkout),
            "WORK": name,
            "PORT": str(free_port(3 + options.nodes)),
            "NODES": str(options.nodes),
            "ROUNDS": str(options.rounds),
            "RUN": options.run,
            "FLWR_HOME": f"{name}/flwr",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(["bash", "-euc", STEPS], env=environment, cwd=name, check=False)
        log = Path(name) / "run" / "run.jsonl"
        if done.returncode or not log.exists():
            for text in sorted(Path(name).glob("*.log")):
                print(f"--- {text.name}\n{text.read_text()[-2000:]}", file=sys.stderr)
            raise SystemExit(f"The deployment of {checkout} has failed.")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert len(lines) == 1 + options.rounds, lines[-1]
        found.add(lines, Path(name) / "lab/superlink/state/socket-bytes.json")


def main() -> None:
    """Print the table, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="a checkout of an older commit")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=1, help="deployments of each")
    parser.add_argument("--run", default="wire-dtype='int8'", help="settings of the run")
    options = parser.parse_args()
    ways = {"now": Path(__file__).absolute().parent.parent}
    if options.before:
        ways = {"before": options.before.absolute(), **ways}
    found = {label: Deployed() for label in ways}
    for _ in range(options.pairs):
        for label, checkout in ways.items():
            deploy(checkout, options, found[label])
    print(f"| {options.nodes} nodes, seconds | rounds | a round, median | {' | '.join(PARTS)} |")
    print("|---|---|---|---|---|---|---|")
    medians = {}
    for label, each in found.items():
        medians[label] = median(sum(parts.values()) for parts in each.seconds)
        parts = " | ".join(f"{median(s[part] for s in each.seconds):.1f}" for part in PARTS)
        print(f"| {label} | {len(each.seconds)} | {medians[label]:.1f} | {parts} |")
    for label, each in found.items():
        for way, metered, line in zip(("down", "up"), each.metered, each.line, strict=True):
            told = f"{line / 1000:.1f} kB on the line, {line / metered:.3f} times as metered"
            print(
                f"{label}, {way}: {metered / 1000:.1f} kB metered, {told if line else 'no books'}"
            )
    if options.before:
        print(f"\nA round takes {medians['now'] / medians['before']:.2f} times as long as before.")


if __name__ == "__main__":
    main()
