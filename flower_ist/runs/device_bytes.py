"""What a device pays on its line for a run: a table from the run log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from flower_ist.console import cell
from flower_ist.tables import new_table


def device_table(name: str, rounds: Sequence[dict[str, Any]]) -> Table | None:
    """Return the mean bytes of a client by what they were for, or None if the log has none.

    Args:
        name: of the run.
        rounds: the lines of its log. Bytes are known of runs in a deployment with a gateway.
    """
    known = [line for line in rounds if "socket_bytes" in line]
    clients = max(
        (len(line["clients"]) + line.get("clients_not_listed", 0) for line in known), default=0
    )
    if not clients:
        return None
    table = new_table(
        cell(f"what a device pays: {name}, mean of {clients}", style="table.title"),
    )
    table.add_column("what")
    table.add_column("kB\ndown", justify="right", no_wrap=True)
    table.add_column("kB\nup", justify="right", no_wrap=True)
    for what, (down, up) in device_bytes(known).items():
        table.add_row(what, *(f"{count / clients / 1e3:.1f}" for count in (down, up)))
    return table


def device_bytes(rounds: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return what the bytes of all clients were for -> bytes down and up; TLS included.

    The last row is what the run log's messages have of it.
    """
    first = [line for line in rounds if line["round"] == 0]
    later = [line for line in rounds if line["round"] > 0]
    rows = {
        "app bundle": _sum(rounds, "bundle"),
        "before the first round": _sum(first, "messages"),
        "rounds": _sum(later, "messages"),
        "waiting and handshakes": _sum(rounds, "waiting", "handshakes"),
    }
    down, up = (sum(row[way] for row in rows.values()) for way in (0, 1))
    messages = [
        sum(line[field] for line in rounds) for field in ("wire_bytes_down", "wire_bytes_up")
    ]
    return {**rows, "in all": (down, up), "messages alone": (messages[0], messages[1])}


def _sum(rounds: Sequence[dict[str, Any]], *kinds: str) -> tuple[int, int]:
    counts = [line["socket_bytes"].get(kind, (0, 0)) for line in rounds for kind in kinds]
    return sum(down for down, _ in counts), sum(up for _, up in counts)
