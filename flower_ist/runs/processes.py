"""End programs with all that they have started, also what left their process group."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def stop_all(programs: Sequence[subprocess.Popen[bytes]]) -> None:
    """End programs that were started in sessions of their own, with their children.

    Flower's simulation and Ray's programs are in other sessions than the SuperLink that began them.
    """
    others = [pid for program in programs for pid in descendants(program.pid)]
    for stop, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        for program in programs:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, stop)
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, stop)
        for program in programs:
            with suppress(subprocess.TimeoutExpired):
                program.wait(patience)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have.

    Where there is no ``/proc`` none are found.

    Args:
        pid: of a process that is running: the children of one that has ended have another parent.
    """
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in parentheses, may hold anything; then the state, and the parent.
            parent = int(file.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(file.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]
