"""Run logs of a comparison, written by hand, and small plans."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from flower_ist.compare.plan import Plan
from flower_ist.compare.planning import make_plan
from tests.fakes import ROOT

TINY = ("hidden-width=8", "local-steps=2", "batch-size=8", "validation-share=0.2")
VOID = {"meta", "link", "img", "br"}


def tiny_plan(data: Path | None, strategies: str, **changes: Any) -> Plan:
    """A plan of runs that take a moment: two clients, two rounds, a net of width 8."""
    settings = [*TINY, *changes.pop("settings", [])]
    defaults = {"clients": 2, "rounds": 2, "seeds": 1, "app": ROOT, "plain": True}
    return make_plan(data=data, strategies=strategies, settings=settings, **(defaults | changes))


def line(
    server_round: int,
    accuracy: float | None,
    validation: float | None,
    *,
    down: int,
    up: int,
    coverage: float = 1.0,
    failed: int = 0,
) -> dict[str, Any]:
    """A round in which client a took two thirds of the bytes and client b the rest."""
    clients = {
        "a": {"wire_bytes_down": down * 2 // 3, "wire_bytes_up": up * 2 // 3},
        "b": {"wire_bytes_down": down // 3, "wire_bytes_up": up // 3},
    }
    found = {
        "round": server_round,
        "accuracy": accuracy,
        "wire_bytes_down": down,
        "wire_bytes_up": up,
        "clients_selected": 2 if server_round else 0,
        "clients_failed": failed,
        "coverage": coverage,
        "clients": clients,
    }
    return found if validation is None else {**found, "validation_accuracy": validation}


def log(
    *rounds: tuple[float, float | None], down: int, up: int, coverage: float = 1.0
) -> list[Any]:
    """A log of 30 bytes for the query, then of rounds of (accuracy, validation accuracy)."""
    first = line(0, 0.1, 0.1, down=15, up=15)
    trained = [
        line(number, *pair, down=down, up=up, coverage=coverage)
        for number, pair in enumerate(rounds, start=1)
    ]
    return [first, *trained]


# FedAvg: 30, 930, 1830 and 2730 bytes. Seed 0: validation is best in round 2, test in round 3.
FEDAVG = [
    log((0.50, 0.52), (0.70, 0.75), (0.80, 0.74), down=600, up=300),
    log((0.52, 0.50), (0.60, 0.60), (0.72, 0.70), down=600, up=300),
    log((0.40, 0.45), (0.66, 0.66), (0.74, 0.72), down=600, up=300),
]
# IST: 30, 120, 210 and 300 bytes; the third seed never reaches 71.5 %.
IST = [
    log((0.30, 0.30), (0.60, 0.60), (0.72, 0.70), down=60, up=30, coverage=0.5),
    log((0.30, 0.30), (0.62, 0.60), (0.73, 0.70), down=60, up=30, coverage=0.5),
    log((0.30, 0.30), (0.50, 0.60), (0.70, 0.70), down=60, up=30, coverage=0.5),
]
RIDGE = [log((0.65, 0.65), down=0, up=180)] * 3
CENTRAL = [log((0.9, 0.9), down=900, up=900)] * 3
LOGS = {"ist": IST, "ridge": RIDGE, "fedavg": FEDAVG, "central": CENTRAL}


class StrictPage(HTMLParser):
    """Reads a page that must be balanced, must load nothing, and gives an id only once."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.rows: list[dict[str, str]] = []
        self.images: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs)
        assert tag not in ("script", "iframe", "object")
        for name in ("src", "href"):
            assert (given.get(name) or "data:").startswith("data:")
        if "id" in given:
            assert given["id"] not in self.ids
            self.ids.add(str(given["id"]))
        if tag == "tr":
            self.rows.append({})
        if tag == "data":
            self.rows[-1][str(given["class"])] = str(given["value"])
        if tag == "img":
            self.images.append(str(given["src"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
