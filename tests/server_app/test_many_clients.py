"""What a round writes and does grows with the clients that train in it, not with the registered."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from flower_ist.grids import clients
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.prior import PriorOnce
from flower_ist.runs.app import run_in_process
from flower_ist.strategies.quarantine import Quarantine
from flower_ist.strategies.selection import ClientSelection
from flower_ist.wire.protocol import FACTS_RECORD
from server_app.app import app as server_app
from server_app.newcomers import Newcomers
from server_app.statistics_file import Counted
from tests.fakes.tiny import numpy_app, tiny_app

SAMPLED = 4


def written(config: dict[str, Any], registered: int) -> tuple[list[int], int]:
    """Return the bytes of the lines of changes, and those of the last checkpoint."""
    run_in_process(server_app, numpy_app("client-{:03d}".format), registered, config)
    folder = Path(config["output-dir"]) / "checkpoints"
    lines = (folder / "changes-000000.jsonl").read_bytes().splitlines(keepends=True)
    return [len(line) for line in lines], max(folder.glob("round-*")).stat().st_size


def test_the_bytes_of_a_round(blob_config: Callable[..., dict[str, Any]]):
    """Four entries like ``"client-000": 1`` in a line that names three dicts.

    4 x 15 bytes, 3 x 2 between them, 3 x 7 of ``"0": {}``, 2 x 2 between these, two braces, an end.
    """
    options = {"strategy": "ist", "num_rounds": 4, "fraction_train": 0.01}
    options |= {"min_train_nodes": SAMPLED, "hidden_width": 4, "hidden_layers": 1}
    options |= {"standardize": False, "replay": False, "lda_skip": False}
    few, few_whole = written(blob_config(**options), 20)
    many, many_whole = written(blob_config(**options), 120)
    assert few[2:] == many[2:] == [4 * 15 + 3 * 2 + 3 * 7 + 2 * 2 + 2 + 1] * 3
    # Once each: names and nodes in round 0, seats in round 1.
    assert many[0] + many[1] > 5 * (few[0] + few[1])
    assert abs(many_whole - few_whole) <= 16  # digits


class CountedGrid(InProcessGrid):
    """A grid that hands out the same list: how Flower makes it is Flower's."""

    def get_node_ids(self) -> Iterable[int]:
        return self._contexts.keys()


def operations(call: Callable[[], object]) -> int:
    """Return how many of Python's operations a call runs in this project's code."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        file = frame.f_code.co_filename
        frame.f_trace_opcodes = "/flower_ist/" in file or "/server_app/" in file
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_the_work_of_a_selection(monkeypatch: pytest.MonkeyPatch):
    """In the first round everybody is looked at; after it, only those that are drawn."""
    monkeypatch.setattr(clients, "_NAMES_FRESH", float("inf"))

    def rounds(registered: int) -> list[int]:
        grid, registry = CountedGrid(tiny_app(), registered), ClientRegistry()
        selection = ClientSelection(registry, Quarantine(3), 0, patience=1.0)
        numbers = {"fraction": 0.0, "min_train_nodes": SAMPLED, "min_available_nodes": SAMPLED}
        selects = [partial(selection.select, r, grid, **numbers) for r in range(1, 5)]
        return [operations(select) for select in selects]

    few, many = rounds(20), rounds(220)
    assert few[0] > 10 * SAMPLED
    assert many[0] > 5 * few[0]
    assert few[1:] == many[1:] == [few[1]] * 3


def test_the_work_of_looking_for_newcomers(monkeypatch: pytest.MonkeyPatch):
    """All are counted in the statistics; one is met anew, and only that one is looked at again."""
    monkeypatch.setattr(clients, "_NAMES_FRESH", float("inf"))

    def rounds(registered: int) -> list[int]:
        grid, registry = CountedGrid(tiny_app(), registered), ClientRegistry()
        counted = {client.name: Counted() for client in registry.meet(grid, grid.get_node_ids())}
        start: Any = SimpleNamespace(sums=SimpleNamespace(clients=counted))
        newcomers = Newcomers(registry, start, PriorOnce(), Path(), lambda: 1, 9)
        look = partial(newcomers.nodes, grid)
        found = [operations(look), operations(look)]
        asked = Message(RecordDict(), next(iter(grid.get_node_ids())), "train")
        news = RecordDict({FACTS_RECORD: ConfigRecord({"client-name": "client-0"})})
        assert registry.renew(Message(news, reply_to=asked)) is not None
        return [*found, operations(look), operations(look)]

    few, many = rounds(20), rounds(220)
    assert many[0] > 5 * few[0]
    assert few[1:] == many[1:]
    assert few[2] > few[1] == few[3]
