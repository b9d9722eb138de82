"""A real SuperLink with many SuperNodes on one machine: seconds of a round, and what idling costs.

    python benchmarks/many_nodes.py [--nodes 20] [--rounds 10] [--idle 60]

Each node is a SuperNode of its own, and each message starts a process, as on devices; they share
this machine's cores, so that a round takes as long as all those starts. It also tells the CPU
seconds and the memory of the SuperLink, in the run and while all nodes only wait for work.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from client_footprint import family

from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LocalFlower
from flower_ist.runs.log import read_run
from flower_ist.runs.ports import free_port

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_and_memory(process: int) -> tuple[float, int]:
    """Return the CPU seconds of a process so far, and its resident bytes."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    resident = sum(1024 * int(ln.split()[1]) for ln in lines if ln.startswith("VmRSS:"))
    return (int(fields[11]) + int(fields[12])) / _TICKS, resident


def family_cpu(node: int) -> float:
    """Return the CPU seconds of a SuperNode and of what it has started and still runs."""
    return sum(cpu_and_memory(process)[0] for process in family(node))


def superlink_of(home: Path) -> int:
    """Return the process id of the SuperLink with this home."""
    mark = f"FLWR_HOME={home}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            if b"flower-superlink" in words and mark in (process / "environ").read_bytes():
                return int(process.name)
        except OSError:  # it has ended, or is somebody else's
            continue
    raise LookupError("The SuperLink has ended.")


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--idle", type=float, default=60.0)
    options = parser.parse_args()
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    with tempfile.TemporaryDirectory() as name, LocalFlower(simulation=False) as flower:
        scratch, nodes = Path(name), list[int]()
        for node in range(options.nodes):
            command = ["flower-supernode", "--insecure", "--superlink", flower.address]
            command += ["--port", str(free_port()), "--node-config"]
            command += [f"partition-id={node} num-partitions={options.nodes}"]
            nodes.append(flower.start(command, scratch / f"node-{node}.log").pid)
        settings = {
            "num-rounds": options.rounds,
            "num-slices": min(8, options.nodes),
            "min-train-nodes": options.nodes // 2,
            "min-available-nodes": options.nodes,
            "node-timeout": 1800.0,
            "round-timeout": 900.0,
            "local-steps": 20,
            "output-dir": str(scratch / "run"),
        }
        flower.wait(flower.submit(find_app(), settings), 3600)
        lines = read_run(scratch / "run")[1:]
        superlink = superlink_of(flower.home)
        used, resident = cpu_and_memory(superlink)
        device = sum(map(family_cpu, nodes))
        time.sleep(options.idle)
        idle = cpu_and_memory(superlink)[0] - used
        device = sum(map(family_cpu, nodes)) - device
    seconds = [sum(line["seconds"].values()) for line in lines]
    failed = sum(line["clients_failed"] for line in lines)
    asked = sum(line["clients_selected"] for line in lines)
    print(f"{options.nodes} nodes, {len(lines)} rounds: {median(seconds):.1f} s a round (median)")
    print(f"{failed} of {asked} replies failed; accuracy {lines[-1]['accuracy']:.3f}")
    print(f"SuperLink: {used:.1f} CPU s, {resident / 2**20:.0f} MiB")
    ms = 1e3 / options.idle / options.nodes
    print(
        f"waiting, ms of CPU a second and node: SuperLink {ms * idle:.2f}, node {ms * device:.2f}"
    )


if __name__ == "__main__":
    main()
