"""Where the seconds of a small federation's round go: real SuperLink, two SuperNodes, demo tokens.

    python benchmarks/round_latency.py [--before CHECKOUT] [--nodes 2] [--rounds 5]

Each line is one deployment of its own: with the poll interval that Flower has by itself (1 s) and
with the one that ``flower-ist deploy init`` writes (0.1 s), and with a checkout of an older commit
if one is given. The round's seconds are those of the run log; ``process`` is how long one of the
processes that Flower starts for each message takes until it calls the app, of which its imports are
most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

INTERVAL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"
PROBE = Path(__file__).parent / "probe"
PARTS = ("select", "train", "merge", "evaluate")

# Runs in both releases; the app is the checkout itself.
DEPLOYMENT = """
import json, sys, time
from pathlib import Path
from flower_ist.runs.launch import LocalFlower, free_port
from flower_ist.runs.log import read_run
checkout, scratch, nodes, rounds = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
with LocalFlower(simulation=False) as flower:
    for node in range(nodes):
        command = ["flower-supernode", "--insecure", "--superlink", flower.address, "--port",
                   str(free_port()), "--node-config", f"partition-id={node} num-partitions={nodes}"]
        flower.start(command, scratch / f"node-{node}.log")
    settings = {"num-rounds": rounds, "min-train-nodes": nodes, "min-available-nodes": nodes,
                "node-timeout": 300.0, "local-steps": 20, "output-dir": str(scratch / "run")}
    start = time.monotonic()
    flower.wait(flower.submit(checkout, settings), 900)
    whole = time.monotonic() - start
print(json.dumps({"whole": whole, "rounds": [r["seconds"] for r in read_run(scratch / "run")]}))
"""


def deployment(checkout: Path, interval: str | None, nodes: int, rounds: int) -> str:
    """Run a federation and return its line of the table."""
    with tempfile.TemporaryDirectory() as name:
        notes = Path(name) / "notes"
        notes.mkdir()
        environment = {key: value for key, value in os.environ.items() if key != INTERVAL}
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(PROBE), str(checkout)]),
            "FLOWER_IST_PROBE": str(notes),
            "OPENBLAS_NUM_THREADS": "1",
            **({INTERVAL: interval} if interval else {}),
        }
        command = [sys.executable, "-W", "ignore", "-c", DEPLOYMENT, str(checkout), name]
        output = subprocess.run(
            [*command, str(nodes), str(rounds)],
            env=environment,
            cwd=name,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found = json.loads(output.stdout.splitlines()[-1])
        starts = [json.loads(file.read_text())["app-seconds"] for file in notes.iterdir()]
    lines = found["rounds"][1:]
    parts = [median(line[part] for line in lines) for part in PARTS]
    whole = median(sum(line.values()) for line in lines)
    return " | ".join(
        f"{seconds:.1f}" for seconds in (whole, *parts, median(starts), found["whole"])
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="a checkout of an older commit")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    here = Path(__file__).absolute().parent.parent
    ways: list[tuple[str, Path, str | None]] = [
        ("now, 1 s", here, None),
        ("now, 0.1 s", here, "0.1"),
    ]
    if options.before:
        ways.insert(0, ("before, 1 s", options.before.absolute(), None))
    print(
        f"| {options.nodes} nodes, seconds | a round | {' | '.join(PARTS)} | process | whole run |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for label, checkout, interval in ways:
        line = deployment(checkout, interval, options.nodes, options.rounds)
        print(f"| {label} | {line} |", flush=True)


if __name__ == "__main__":
    main()
