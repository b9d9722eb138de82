"""Start-up, memory and disk that one device needs: a real SuperNode trains slices of a K=4 model.

A SuperLink and one SuperNode run as separate processes, as in a deployment. The SuperNode starts a
new process for each message; a probe in it (``probe/sitecustomize.py``) records the CPU seconds,
the imports and the memory up to its first training step. The memory of the SuperNode and of all
processes that it starts is read from /proc (Linux) until the run ends. The disk figure is the
installed size of a device's requirements and all their dependencies.

    python benchmarks/client_footprint.py
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from statistics import median
from threading import Event, Thread

from packaging.requirements import Requirement

from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LocalFlower
from flower_ist.runs.ports import free_port

MIB = 2**20
SLICES = 4
ROUNDS = 3
# The requirements.txt that `flower-ist deploy init` writes for a device.
DEVICE = ["flwr", "flower-ist"]
PACKAGES = ("flower_ist", "client_app", "server_app", "data_prep")
# And what its start.sh sets.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
PROBE = Path(__file__).parent / "probe"
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
        for process in family(self.root):
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
    """Return package -> bytes of its files, for packages and all that they require here.

    Args:
        packages: requirements, extras included.
    """
    sizes: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), extra) for line in packages for extra in _extras(line)]
    while waiting:
        required, extra = waiting.pop()
        key = re.sub(r"[-_.]+", "-", required.name).lower()
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        try:
            package = distribution(required.name)
        except PackageNotFoundError:  # for another platform
            continue
        files = [Path(str(file.locate())) for file in package.files or []]
        sizes[key] = sum(file.stat().st_size for file in files if file.is_file())
        for line in package.requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed, extra) for extra in _extras(line)]
    return sizes


def library_bytes(checkout: Path) -> int:
    """Return the bytes of what the wheel of this project installs."""
    files = [file for name in PACKAGES for file in (checkout / name).rglob("*")]
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file())


def _extras(line: str) -> list[str]:
    return ["", *Requirement(line).extras]


def watch_client(scratch: Path) -> tuple[MemoryWatch, list[dict[str, float]]]:
    """Run a federation of one device; return its memory, and what each process has noted."""
    notes = scratch / "notes"
    notes.mkdir()
    path = os.pathsep.join([str(PROBE), os.environ.get("PYTHONPATH", "")])
    os.environ |= {**ENVIRONMENT, "FLOWER_IST_PROBE": str(notes), "PYTHONPATH": path}
    with LocalFlower(simulation=False) as flower:
        command = ["flower-supernode", "--insecure", "--superlink", flower.address]
        command += ["--port", str(free_port())]
        command += ["--node-config", f"partition-id=0 num-partitions={SLICES}"]
        watch = MemoryWatch(flower.start(command, scratch / "supernode.log").pid)
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
            "output-dir": str(scratch / "run"),
        }
        flower.wait(flower.submit(find_app(), settings), 600)
        watch.stop()
        thread.join()
    return watch, [json.loads(file.read_text()) for file in sorted(notes.iterdir())]


def main() -> None:
    """Print two tables."""
    if not sys.platform.startswith("linux"):
        sys.exit("This reads /proc: run it on Linux.")
    with tempfile.TemporaryDirectory() as scratch:
        watch, notes = watch_client(Path(scratch))
    print(f"| one message's process, median of {len(notes)} | until the app | first step |")
    print("|---|---|---|")
    for name, scale, digits in (
        ("cpu-seconds", 1, 2),
        ("seconds", 1, 2),
        ("modules", 1, 0),
        ("bytes", MIB, 0),
    ):
        app, step = (median(n[f"{part}-{name}"] for n in notes) / scale for part in ("app", "step"))
        label = {"cpu-seconds": "processor, s", "bytes": "memory, MiB"}.get(name, name)
        print(f"| {label} | {app:.{digits}f} | {step:.{digits}f} |")
    # In a checkout flower-ist is only linked to: on a device its packages are installed.
    sizes = {**installed_bytes(DEVICE), "flower-ist": library_bytes(find_app())}
    print("\n| what | MiB |")
    print("|---|---|")
    for program, peak in sorted(watch.peak_rss.items()):
        print(f"| peak resident memory of `{program}` | {peak / MIB:.0f} |")
    print(f"| all processes together, waiting for work (Pss) | {watch.idle_pss / MIB:.0f} |")
    print(f"| all processes together, most at one moment (Pss) | {watch.peak_pss / MIB:.0f} |")
    print(f"| installed: all {len(sizes)} packages | {sum(sizes.values()) / MIB:.0f} |")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:5]:
        print(f"| installed: {name} | {size / MIB:.0f} |")


def family(root: int) -> list[int]:
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
