"""Follow a document's commands in one shell, and count what strangers get to see."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self


def code_blocks(document: Path, language: str) -> list[str]:
    """Return a Markdown document's code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def with_values(block: str, values: Mapping[str, str]) -> str:
    """Give variables that a block of settings sets other values; each must be set there once."""
    for name, value in values.items():
        block, count = re.subn(rf"(?m)^((?:export )?{name})=\S+", rf"\g<1>={value}", block)
        assert count == 1, f"the document sets {name} {count} times"
    return block


class Shell:
    """One bash, stopped by the first command that fails; it ends with all that it has started."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.log = folder / "shell.log"
        self._environment = {**os.environ, **environment}
        self._blocks = 0

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._bash = subprocess.Popen(
                ["bash", "-eu", "-o", "pipefail"],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Even if this process is killed, bash reads the end of its input and takes its jobs along.
        self._write("trap 'kill $(jobs -p) 2> /dev/null' EXIT")
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._bash.pid, number)
            if number is signal.SIGTERM:
                time.sleep(1.0)
        assert self._bash.stdin is not None
        with suppress(BrokenPipeError):
            self._bash.stdin.close()
        self._bash.wait(10)

    def run(self, block: str, timeout: float) -> str:
        """Run a block to its end and return what it printed; ``timeout`` is in seconds."""
        start = self.log.stat().st_size
        self._blocks += 1
        done = self.folder / f".block-{self._blocks}-done"
        self._write(f"{block}\n: > '{done}'")
        deadline = time.monotonic() + timeout
        while not done.exists():
            assert self._bash.poll() is None, f"A command failed:\n{block}\n{self._printed()}"
            assert time.monotonic() < deadline, f"No end after {timeout} s:\n{self._printed()}"
            time.sleep(0.1)
        return self.log.read_bytes()[start:].decode(errors="replace")

    def _write(self, commands: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{commands}\n".encode())
        self._bash.stdin.flush()

    def _printed(self) -> str:
        logs = [self.log, *sorted(self.folder.rglob("*.log"))]
        texts = [f"--- {log}\n{log.read_text(errors='replace')[-3000:]}" for log in logs]
        return "\n".join(dict.fromkeys(texts))


class CountingProxy:
    """A TCP proxy on the loopback address that counts the bytes of both directions."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.bytes_to_clients = 0
        self.bytes_to_server = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self.connections += 1
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is server:
                        self.bytes_to_clients += len(data)
                    else:
                        self.bytes_to_server += len(data)
                    (client if source is server else server).sendall(data)
