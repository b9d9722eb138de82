"""What devices have paid on their lines since the last look, as a deployment's gateway counts it.

Messages are a part of it. The others are the app bundle, questions for work, heartbeats and TLS.
Without a gateway, as in simulation, nothing is known and nothing is logged.
"""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from collections.abc import Mapping
from typing import Any

GATEWAY_VARIABLE = "FLOWER_IST_GATEWAY"
"""Environment variable with the gateway's loopback address, ``host:port``."""

_TIMEOUT_SECONDS = 5.0

_log = logging.getLogger("flwr")
Counts = dict[str, tuple[int, int]]


class SocketBytes:
    """Bytes by node, kind and direction since this object was made, or last asked.

    Args:
        address: of the gateway's books, ``host:port``; empty: there is no gateway.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._before: dict[int, Counts] = self._read() or {}

    @classmethod
    def from_environment(cls) -> SocketBytes:
        """Return those of the gateway that the start scripts name, if any."""
        return cls(os.environ.get(GATEWAY_VARIABLE, ""))

    def since_last(self) -> dict[int, Counts] | None:
        """Return node id -> kind -> (bytes to the node, bytes from it); None: not known."""
        now = self._read()
        if now is None:
            return None
        before, self._before = self._before, now
        return {
            node: {
                kind: (down - was[0], up - was[1])
                for kind, (down, up) in counts.items()
                for was in [before.get(node, {}).get(kind, (0, 0))]
            }
            for node, counts in now.items()
        }

    def _read(self) -> dict[int, Counts] | None:
        if not self._address:
            return None
        # A proxy set for outside traffic must not see traffic within this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{self._address}/bytes", timeout=_TIMEOUT_SECONDS) as answer:
                nodes = json.loads(answer.read())["nodes"]
            return {
                int(node): {kind: (int(down), int(up)) for kind, (down, up) in counts.items()}
                for node, counts in nodes.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
            _log.warning("The gateway at %s tells no socket bytes: %s", self._address, err)
            return None


def socket_fields(since_last: Mapping[int, Counts] | None) -> dict[str, Any]:
    """Return the run log's fields for a round; none if nothing is known."""
    if since_last is None:
        return {}
    kinds: dict[str, list[int]] = {}
    for counts in since_last.values():
        for kind, (down, up) in counts.items():
            total = kinds.setdefault(kind, [0, 0])
            total[0] += down
            total[1] += up
    down, up = (sum(total[way] for total in kinds.values()) for way in (0, 1))
    return {"socket_bytes_down": down, "socket_bytes_up": up, "socket_bytes": kinds}


def node_fields(counts: Counts | None) -> dict[str, int]:
    """Return the run log's fields for one client in a round; none if nothing is known."""
    if counts is None:
        return {}
    down, up = (sum(count[way] for count in counts.values()) for way in (0, 1))
    return {"socket_bytes_down": down, "socket_bytes_up": up}
