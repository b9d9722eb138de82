"""Memory and disk that one device needs: a real SuperNode trains slices of a K=4 model.

A SuperLink and one SuperNode run as separate processes, as in a deployment. The memory of the
SuperNode and of all processes that it starts is read from /proc (Linux) until the run is over; the
disk is what flwr, torch, numpy and all that they require have installed.

    python benchmarks/client_footprint.py
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from threading import Event, Thread

from packaging.requirements import Requirement

from flower_ist.compare.demo import find_app
from flower_ist.runs.launch import LocalFlower, free_port

MIB = 2**20
SLICES = 4
ROUNDS = 3
_SAMPLE_SECONDS = 0.05


@dataclass
class MemoryWatch:
    """The memory of a process and all its descendants, sampled in a thread.

    Attributes:
        root: the process's id.
        peak_rss: program -> most resident bytes that one process of it ever had (VmHWM).
        peak_pss: most bytes of all processes at one sample; pages shared by several count once.
        idle_pss: the same, before the run began.
    """

    root: int
    peak_rss: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    peak_pss: int = 0
    idle_pss: int = 0
    _over: Event = field(default_factory=Event)

    def sample(self) -> None:
        """Look once."""
        total = 0
        for process in _family(self.root):
            try:
                program = Path(_program(process)).name
                rss = _kib(Path(f"/proc/{process}/status"), "VmHWM")
                total += _kib(Path(f"/proc/{process}/smaps_rollup"), "Pss")
            except (OSError, ValueError):  # it has just ended
                continue
            self.peak_rss[program] = max(self.peak_rss[program], rss)
        self.peak_pss = max(self.peak_pss, total)

    def start(self) -> Thread:
        """Sample until :meth:`stop`."""
        thread = Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End the thread."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self.sample()


def installed_bytes(packages: Iterable[str]) -> dict[str, int]:
    """Return package -> bytes of its files, for packages and all that they require here."""
    sizes: dict[str, int] = {}
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in sizes:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another platform or an extra that is not installed
            continue
        files = [Path(str(file.locate())) for file in package.files or []]
        sizes[key] = sum(file.stat().st_size for file in files if file.is_file())
        for line in package.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return sizes


def watch_client() -> MemoryWatch:
    """Run a federation of one device and return its memory."""
    with tempfile.TemporaryDirectory() as scratch, LocalFlower(simulation=False) as flower:
        command = ["flower-supernode", "--insecure", "--superlink", flower.address]
        command += ["--port", str(free_port())]
        command += ["--node-config", f"partition-id=0 num-partitions={SLICES}"]
        log = Path(scratch) / "supernode.log"
        watch = MemoryWatch(flower.start(command, log).pid)
        time.sleep(15)
        watch.sample()
        watch.idle_pss = watch.peak_pss
        thread = watch.start()
        settings = {
            "num-rounds": ROUNDS,
            "num-slices": SLICES,
            "min-train-nodes": 1,
            "min-available-nodes": 1,
            "node-timeout": 120.0,
            "output-dir": str(Path(scratch) / "run"),
        }
        flower.wait(flower.submit(find_app(), settings), 600)
        watch.stop()
        thread.join()
        return watch


def main() -> None:
    """Print one table."""
    if not sys.platform.startswith("linux"):
        sys.exit("This reads /proc: run it on Linux.")
    watch = watch_client()
    sizes = installed_bytes(["flwr", "torch", "numpy"])
    print("| what | MiB |")
    print("|---|---|")
    for program, peak in sorted(watch.peak_rss.items()):
        print(f"| peak resident memory of `{program}` | {peak / MIB:.0f} |")
    print(f"| all processes together, waiting for work (Pss) | {watch.idle_pss / MIB:.0f} |")
    print(f"| all processes together, most at one moment (Pss) | {watch.peak_pss / MIB:.0f} |")
    print(f"| installed: all {len(sizes)} packages | {sum(sizes.values()) / MIB:.0f} |")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:5]:
        print(f"| installed: {name} | {size / MIB:.0f} |")


def _family(root: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may hold anything, blanks and parentheses too.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children[int(fields[1])].append(int(entry.name))
    family = [root]
    for process in family:
        family += children[process]
    return family


def _program(process: int) -> str:
    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    # A console script is run by Python: the script is the second word.
    by_python = len(words) > 2 and "python" in Path(words[0].decode()).name
    return words[1 if by_python else 0].decode()


def _kib(file: Path, name: str) -> int:
    """Return a value of a /proc file in bytes; there it is in KiB.

    Raises:
        ValueError: the process is a zombie and has no memory.
    """
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"{file} has no {name}")


if __name__ == "__main__":
    main()
