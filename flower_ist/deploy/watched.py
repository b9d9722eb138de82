"""Run one of Flower's programs and start it again whenever it has ended, or only seems to live.

    python3 -m flower_ist.deploy.watched [--awake SECONDS] flower-supernode --superlink ...

A SuperNode that cannot connect ends. One that meets an error of the SuperLink leaves the
federation, and its process goes on without doing anything. A SuperLink or a SuperNode whose
``flower-superexec`` has died takes work that nobody does. Nothing outside the process sees any of
this. So Flower's own entry point runs in a child that ends itself in all these cases, and this
program starts it again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import NoReturn

RESTART_SECONDS = 10.0
EXECUTOR = "flower-superexec"
MODULE = "flower_ist.deploy.watched"
_LOOK_SECONDS = 5.0
_GRACE_SECONDS = 10.0
_INSIDE = "WATCHED_PROGRAM"


def keep_running(command: list[str], awake: float) -> int:
    """Run a program again and again until a signal ends it, or its time is up.

    Args:
        command: the program and its options.
        awake: seconds after which it is ended; 0: never.
    """
    until = time.monotonic() + awake if awake else float("inf")
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    here = [sys.executable, "-m", MODULE, *command]
    while not ended.is_set() and time.monotonic() < until:
        child = subprocess.Popen(here, env={**os.environ, _INSIDE: "1"})
        while child.poll() is None and not ended.is_set() and time.monotonic() < until:
            ended.wait(0.2)
        if child.poll() is None:
            _stop(child)
            break
        say(f"{command[0]} has ended; it is started again in {RESTART_SECONDS:.0f} s.")
        ended.wait(min(RESTART_SECONDS, max(0.0, until - time.monotonic())))
    return 0


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def run(command: list[str]) -> NoReturn:
    """Run a program of Flower's in this process, and end the process as soon as it is of no use."""
    (program,) = entry_points(group="console_scripts", name=command[0])
    if command[0] == "flower-supernode":
        from flower_ist.deploy.short_transport import install

        install()
    threading.excepthook = lambda failed: _end(f"a thread has failed: {failed.exc_value!r}")
    threading.Thread(target=_watch_executor, daemon=True).start()
    sys.argv = command
    try:
        program.load()()
    except Exception as error:
        _end(repr(error))
    # A SuperNode comes here when it has left the federation, with threads that never end.
    _end("it has left the federation.")


def _watch_executor() -> None:
    seen = False
    while True:
        alive = _executor_is_alive(os.getpid())
        if seen and not alive:
            _end(f"{EXECUTOR} has died.")
        seen = seen or alive
        time.sleep(_LOOK_SECONDS)


def _executor_is_alive(process: int) -> bool:
    """Return whether a process has a living child that executes tasks."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name in parentheses: state, then the parent's id.
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == process and state != "Z":
                return EXECUTOR in status.with_name("cmdline").read_text()
        except (OSError, ValueError):  # it has just ended
            continue
    return False


def _end(why: str) -> NoReturn:
    say(f"{sys.argv[0]}: {why}")
    sys.stdout.flush()
    os._exit(1)


def say(text: str) -> None:
    """Write a line into the log."""
    sys.stderr.write(f"watched: {text}\n")
    sys.stderr.flush()


def main() -> int:
    """Be the keeper, or the child that is kept."""
    if os.environ.pop(_INSIDE, ""):
        run(sys.argv[1:])
    parser = argparse.ArgumentParser(description="Keep one of Flower's programs running.")
    parser.add_argument("--awake", type=float, default=0.0, help="seconds to run; 0: for ever")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program and its options")
    options = parser.parse_args()
    return keep_running(options.command, options.awake)


if __name__ == "__main__":
    sys.exit(main())
