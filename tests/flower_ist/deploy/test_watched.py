"""A program that ends, or lives without doing anything, is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes import ROOT

# A console script "flower-test" of a distribution that exists only for this test.
ENTRY = "[console_scripts]\nflower-test = flower_test_program:main\n"
EXECUTOR = "import time; time.sleep(600)  # flower-superexec"


def start(folder: Path, program: str, *options: str) -> subprocess.Popen[bytes]:
    """Start a watched program whose code is ``program``; each of its starts adds a line."""
    info = folder / "flower_test-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flower-test\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY)
    head = "import os, subprocess, sys, threading, time\ndef main():\n"
    body = f"    open({str(folder / 'starts')!r}, 'a').write('x\\n')\n"
    body += "".join(f"    {line}\n" for line in program.splitlines())
    (folder / "flower_test_program.py").write_text(head + body)
    # The constants are for devices; here nobody waits 10 s.
    code = (
        "from flower_ist.deploy import watched\n"
        "watched.RESTART_SECONDS = watched._LOOK_SECONDS = 0.1\n"
        "watched.MODULE = 'quick_watched'\n"
        "sys = watched.sys\n"
        "if __name__ == '__main__':\n    sys.exit(watched.main())\n"
    )
    (folder / "quick_watched.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "quick_watched", *options, "flower-test", "--port", "1"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stderr=log, start_new_session=True)


def starts(folder: Path) -> int:
    file = folder / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for_starts(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while starts(folder) < count:
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    try:
        return process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("sys.exit(1)", "has ended"),
        ("raise RuntimeError('no connection')", "no connection"),
        # As a SuperNode that met a 500: its main thread is done, another lives for ever.
        ("threading.Thread(target=time.sleep, args=(600,)).start()", "left the federation"),
        # As a SuperNode whose heartbeats have failed.
        ("threading.Thread(target=lambda: 1 / 0).start()\ntime.sleep(600)", "thread has failed"),
        # As a SuperLink whose executor has met a 500.
        (
            f"child = subprocess.Popen([sys.executable, '-c', {EXECUTOR!r}])\n"
            "time.sleep(1)\nchild.kill()\ntime.sleep(600)",
            "flower-superexec has died",
        ),
    ],
)
def test_it_is_started_again(program: str, reason: str, tmp_path: Path) -> None:
    process = start(tmp_path, program)
    try:
        wait_for_starts(tmp_path, 3)
    finally:
        assert end(process) == 0
    assert reason in (tmp_path / "log").read_text()


def test_one_that_works_is_left_alone_and_ends_with_its_keeper(tmp_path: Path) -> None:
    program = (
        f"child = subprocess.Popen([sys.executable, '-c', {EXECUTOR!r}])\n"
        f"open({str(tmp_path / 'arguments')!r}, 'w').write(' '.join(sys.argv))\n"
        "time.sleep(600)"
    )
    process = start(tmp_path, program)
    wait_for_starts(tmp_path, 1)
    time.sleep(2)
    assert starts(tmp_path) == 1
    assert (tmp_path / "arguments").read_text() == "flower-test --port 1"
    assert end(process) == 0
    os.killpg(process.pid, signal.SIGKILL)  # the executor that nobody ends here


def test_its_time_may_be_up(tmp_path: Path) -> None:
    process = start(tmp_path, "time.sleep(600)", "--awake", "3")
    assert process.wait(120) == 0
    assert starts(tmp_path) == 1
