"""Start Flower's own programs for a run on this machine, and stop them again.

``flwr run`` alone starts a SuperLink that keeps running and keeps the folder and environment of its
first run, and ``flwr run`` exits with 0 even when a run has failed. Here a SuperLink lives as long
as a ``with`` block, with its own home, port and empty folder, and it is asked for a run's status.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flower_ist.errors import FlowerIstError
from flower_ist.files import output_file, write_file
from flower_ist.runs.ports import free_port
from flower_ist.runs.processes import stop_all

_CONNECTION = "own"
# Far more than an idle machine needs: on a busy one, the imports alone can take a minute.
_START_SECONDS = 120.0
_POLL_SECONDS = 0.5
_STATUS_SECONDS = 20.0
_ANSWER_SECONDS = 300.0
# What Flower bundles, and the file that it asks what to leave out.
_BUNDLED_SUFFIXES = {".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl"}
_BUNDLED_NAMES = {"LICENSE", ".gitignore"}


class LaunchError(FlowerIstError):
    """A Flower program could not be started, or a run failed."""


class LocalFlower:
    """A SuperLink of our own, as a context manager.

    Args:
        simulation: run clients as virtual SuperNodes in this SuperLink's simulation; otherwise it
            waits for SuperNodes to connect at :attr:`address`.

    Raises:
        LaunchError: ``simulation`` is set and Ray is missing.
    """

    def __init__(self, *, simulation: bool = True) -> None:
        if simulation and find_spec("ray") is None:
            raise LaunchError(
                "Flower's simulation needs Ray: pip install 'flower-ist[simulation]'."
            )
        self.simulation = simulation
        self.address = f"127.0.0.1:{free_port()}"
        self.home = Path(tempfile.mkdtemp(prefix="flower-ist-"))
        self.log_file = self.home / "superlink.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start the SuperLink and wait until it answers.

        Raises:
            LaunchError: it exited, or did not answer in time.
        """
        config = f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
        config += f'address = "{self.address}"\ninsecure = true\n'
        write_file(self.home / "config.toml", config)
        host, port = self.address.split(":")
        command = ["flower-superlink", "--insecure", "--host", host, "--port", port]
        try:
            process = self.start(
                [*command, *(["--simulation"] if self.simulation else [])], self.log_file
            )
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(self.address):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise LaunchError(f"The SuperLink did not start:\n{tail(self.log_file)}")
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Call :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Stop every program that was started here, with its children, and remove the home."""
        stop_all(self._processes)
        shutil.rmtree(self.home, ignore_errors=True)

    def start(self, command: list[str], log_file: Path) -> subprocess.Popen[bytes]:
        """Start one of Flower's programs in the background; it is stopped when the block ends."""
        with output_file(log_file) as log:
            process = subprocess.Popen(
                [_program(command[0]), *command[1:]],
                cwd=_empty_folder(self.home),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def submit(self, app: Path, run_config: Mapping[str, Any], num_supernodes: int = 0) -> int:
        """Start a run of an app and return its id.

        Args:
            app: absolute path of the app's folder.
            run_config: overrides of its run config.
            num_supernodes: virtual clients, in simulation.

        Raises:
            LaunchError: Flower refused the run, or did not answer.
            OSError: the app's files cannot be read.
        """
        copy = copy_app(app, Path(tempfile.mkdtemp(prefix="app-", dir=self.home)))
        command = ["flwr", "run", str(copy), _CONNECTION, "--format", "json"]
        for key, value in run_config.items():
            command += ["--run-config", f"{key}={json.dumps(value)}"]
        if self.simulation:
            options = f"num-supernodes={num_supernodes} client-resources-num-cpus=1"
            command += ["--federation-config", options]
        answer = self._ask(command)
        if not answer.get("success", True) or "run-id" not in answer:
            raise LaunchError(f"Flower refused the run: {answer}")
        return int(answer["run-id"])

    def wait(
        self,
        run_id: int,
        timeout: float,
        on_poll: Callable[[], bool] = lambda: False,
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait for the end of a run.

        Args:
            run_id: as returned by :meth:`submit`.
            timeout: seconds without progress.
            on_poll: called twice a second; it returns True if the run may be over.
            progress: returns how far the run is; with each new value the time starts again.

        Raises:
            LaunchError: the run failed, with what Flower reports about it, or did not end in time.
        """
        deadline, reached = time.monotonic() + timeout, progress()
        while True:
            # Asking starts a flwr process, which takes seconds of CPU time: ask rarely.
            facts = self.run_facts(run_id)
            if facts["status"] == "finished:completed":
                return
            if facts["status"].startswith("finished"):
                raise LaunchError(f"The run failed: {facts.get('status-details')}")
            if (now := progress()) != reached:
                deadline, reached = time.monotonic() + timeout, now
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"The run is {facts['status']}, {timeout:.0f} s without progress:\n"
                    f"{tail(self.log_file)}"
                )
            ask_again = time.monotonic() + _STATUS_SECONDS
            while time.monotonic() < ask_again and not on_poll():
                time.sleep(_POLL_SECONDS)

    def run_facts(self, run_id: int) -> dict[str, Any]:
        """Return what Flower reports about a run, including its network traffic."""
        answer = self._ask(
            ["flwr", "list", _CONNECTION, "--run-id", str(run_id), "--format", "json"]
        )
        runs = answer.get("runs") or [{}]
        if "status" not in runs[0]:
            raise LaunchError(f"Flower does not know run {run_id}: {answer}")
        return dict(runs[0])

    def _ask(self, command: list[str]) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [_program(command[0]), *command[1:]],
                cwd=_empty_folder(self.home),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_ANSWER_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise LaunchError(
                f"'{' '.join(command[:2])}' gave no answer in {_ANSWER_SECONDS:.0f} s:\n"
                f"{tail(self.log_file)}"
            ) from None
        # Notes may precede the JSON object.
        text = done.stdout[done.stdout.find("{") :]
        try:
            return dict(json.loads(text))
        except ValueError:
            raise LaunchError(
                f"'{' '.join(command[:2])}' failed:\n{done.stdout}{done.stderr}"
            ) from None

    def _environment(self) -> dict[str, str]:
        programs = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": programs + os.pathsep + os.environ.get("PATH", ""),
            "FLWR_HOME": str(self.home),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "PYTHONUNBUFFERED": "1",
        }


def copy_app(app: Path, folder: Path) -> Path:
    """Copy the files of an app that Flower may bundle, and return the copy's path.

    ``flwr run FOLDER`` resolves the path of every file below FOLDER before it picks the few hundred
    that it bundles. In a checkout with a virtual environment these are tens of thousands of files,
    which takes seconds of CPU time for every run. From this copy it makes the same bundle at once.
    Hidden folders, ``__pycache__``, virtual environments, symbolic links and other kinds of files
    are left out.

    Args:
        app: the app's folder.
        folder: the copy; it may exist if it is empty.

    Raises:
        OSError: a file cannot be read or written.
    """

    def left_out(parent: str, names: Sequence[str]) -> set[str]:
        return {name for name in names if not _may_be_bundled(Path(parent) / name)}

    shutil.copytree(app, folder, ignore=left_out, dirs_exist_ok=True)
    return folder


def _may_be_bundled(path: Path) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        hidden = path.name.startswith(".") or path.name == "__pycache__"
        return not hidden and not (path / "pyvenv.cfg").exists()
    return path.suffix in _BUNDLED_SUFFIXES or path.name in _BUNDLED_NAMES


def tail(file: Path, lines: int = 25) -> str:
    """Return the last lines of a log."""
    try:
        return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(there is no log)"


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise LaunchError(f"{name} was not found: install flwr in this environment.")
    return found


def _empty_folder(home: Path) -> Path:
    # Ray puts the SuperLink's folder first on the module path: it must hold no code.
    folder = home / "cwd"
    folder.mkdir(exist_ok=True)
    return folder


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
