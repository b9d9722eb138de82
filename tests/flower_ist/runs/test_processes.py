"""A program's children are found and stopped, whatever session they are in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flower_ist.runs.launch import LocalFlower
from flower_ist.runs.processes import descendants

# A program whose child, in a session of its own, has a child; it prints their ids.
PROGRAM = """
import subprocess, sys, time
inner = "import os, subprocess, time; p = subprocess.Popen(['sleep', '100']); "
inner += "print(os.getpid(), p.pid, flush=True); time.sleep(100)"
subprocess.Popen([sys.executable, "-c", inner], start_new_session=True)
time.sleep(100)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_children_and_their_children_are_found():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child, grandchild = map(int, process.stdout.readline().split())
        assert descendants(process.pid) == [child, grandchild]
        assert descendants(grandchild) == []
        assert process.pid in descendants(os.getpid())
        for pid in (process.pid, child, grandchild):
            os.kill(pid, 9)


def test_flower_is_stopped_with_what_left_its_process_group(monkeypatch, tmp_path):
    flower = LocalFlower(simulation=False)
    monkeypatch.setattr("flower_ist.runs.launch._program", lambda name: sys.executable)
    flower.start(["flower-superlink", "-c", PROGRAM], tmp_path / "log")
    deadline = time.monotonic() + 60
    while not (ids := (tmp_path / "log").read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(is_running(int(pid)) for pid in ids)
    flower.close()
    while any(is_running(int(pid)) for pid in ids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(int(pid)) for pid in ids)
    assert len(ids) == 2
