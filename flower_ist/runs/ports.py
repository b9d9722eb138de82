"""TCP ports on the loopback address on which nothing listens."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_port(count: int = 1) -> int:
    """Return the first of several free TCP ports in a row."""
    while True:
        with ExitStack() as sockets:
            probe = sockets.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
            try:
                for port in range(first + 1, first + count):
                    sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return first
