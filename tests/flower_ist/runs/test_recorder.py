"""The recorder: one whole line a round, for any strategy, also of a round that failed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from flower_ist.files import NotWrittenError
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.metered import MeteredGrid
from flower_ist.runs import recorder
from flower_ist.runs.log import RUN_LOG, RunLog, read_run
from flower_ist.runs.recorder import RoundRecorder, full_model_bytes
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.submodels.axes import Axes
from flower_ist.wire.size import wire_bytes
from tests.fakes.tiny import WEIGHTS, NotingGrid, model, tiny_app

NUMBER = (int, float)
FIELDS = {
    "round": int,
    "strategy": str,
    "seed": int,
    "accuracy": NUMBER,
    "loss": NUMBER,
    "wire_bytes_down": int,
    "wire_bytes_up": int,
    "payload_bytes_down": int,
    "payload_bytes_up": int,
    "messages_down": int,
    "messages_up": int,
    "full_model_bytes": int,
    "image_bytes": int,
    "image_file_bytes": int,
    "masked_image_bytes": int,
    "token_bytes": int,
    "examples": int,
    "local_steps": int,
    "clients_selected": int,
    "clients_replied": int,
    "clients_failed": int,
    "failures": dict,
    "coverage": NUMBER,
    "seconds": dict,
    "clients": dict,
    "message_types": dict,
    "settings": dict,
}
SETTINGS = {"strategy": "mine", "seed": 4, "batch-size": 8}


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    return MetricRecord({"accuracy": server_round / 10, "loss": 2.5})


def make(name: str, registry: ClientRegistry) -> Strategy:
    options: dict[str, Any] = {"min_available_nodes": 1, "min_train_nodes": 1}
    if name == "fedavg":
        return FedAvg(fraction_evaluate=0.0, **options)
    shapes = {name: weight.shape for name, weight in WEIGHTS.items()}
    axes = Axes.declare(shapes, {"w": ("h", None), "b": ("h",)})
    return ISTStrategy(axes, registry=registry, num_slices=2, **options)


def federate(folder: Path, grid: NotingGrid, name: str = "fedavg", **options: Any) -> list[Any]:
    """Run two rounds among clients that were asked before; return the log's lines."""
    meter, registry = MeteredGrid(grid), ClientRegistry()
    registry.meet(meter, meter.get_node_ids())
    strategy = make(name, registry)
    arguments = {"evaluate": evaluate, "settings": SETTINGS, **options}
    with RoundRecorder(meter, RunLog(folder), strategy, registry=registry, **arguments) as recorder:
        strategy.start(
            grid=meter, initial_arrays=model(), num_rounds=2, timeout=1, evaluate_fn=recorder
        )
    return read_run(folder)


@pytest.mark.parametrize("name", ["fedavg", "ist"])
def test_every_field_is_in_every_line_and_of_its_type(tmp_path, name):
    rounds = federate(tmp_path, NotingGrid(tiny_app(), 2), name)
    assert [line["round"] for line in rounds] == [0, 1, 2]
    for line in rounds:
        assert line.keys() == FIELDS.keys()
        for field, kind in FIELDS.items():
            assert isinstance(line[field], kind), field
            assert not isinstance(line[field], bool), field
        assert set(line["seconds"]) == {"select", "train", "merge", "evaluate"}
        assert all(seconds >= 0 for seconds in line["seconds"].values())
        assert (line["strategy"], line["seed"], line["settings"]) == ("mine", 4, SETTINGS)
        assert (line["accuracy"], line["loss"]) == (line["round"] / 10, 2.5)


@pytest.mark.parametrize("name", ["fedavg", "ist"])
def test_parts_add_up_to_the_totals(tmp_path, name):
    for line in federate(tmp_path, NotingGrid(tiny_app(), 3), name):
        for part in ("clients", "message_types"):
            for field in next(iter(line[part].values())):
                assert sum(counts[field] for counts in line[part].values()) == line[field]


@pytest.mark.parametrize("name", ["fedavg", "ist"])
def test_figures_of_a_round_by_hand(tmp_path, name):
    """FedAvg sends 8 float32 numbers to each of 2 clients, IST half of them to each."""
    query, first, _ = federate(tmp_path, NotingGrid(tiny_app(), 2), name)
    payload = {"fedavg": 2 * 32, "ist": 32}[name]
    assert (first["payload_bytes_down"], first["payload_bytes_up"]) == (payload, payload)
    assert set(first["clients"]) == {"client-0", "client-1"}
    assert set(first["message_types"]) == {"train"}
    assert (first["clients_selected"], first["clients_replied"], first["clients_failed"]) == (
        2,
    ) * 2 + (0,)
    assert (first["coverage"], first["examples"], first["image_bytes"]) == (1.0, 40, 4000)
    assert set(query["message_types"]) == {"query"}
    assert (query["clients_selected"], query["coverage"], query["payload_bytes_down"]) == (0, 0, 0)


def test_bytes_of_the_whole_model_are_those_of_a_real_message(tmp_path):
    content = RecordDict({"arrays": model(), "config": ConfigRecord({"server-round": 1})})
    expected = wire_bytes(Message(content, dst_node_id=5, message_type="train"))
    assert full_model_bytes(model()) == expected
    rounds = federate(tmp_path, NotingGrid(tiny_app(), 2))
    assert {line["full_model_bytes"] for line in rounds} == {expected}
    # Flower's FedAvg adds nothing to its train messages but the round.
    assert rounds[1]["wire_bytes_down"] == 2 * expected


@pytest.mark.parametrize("name", ["fedavg", "ist"])
def test_failures_have_a_name_and_a_reason(tmp_path, name):
    """Client 0 raises, client 1 is not heard of, client 2 trains one of two slices."""
    app = tiny_app(fails=lambda k: k == 0)
    grid = NotingGrid(app, 3, lose=lambda kind, k: (kind, k) == ("train", 1))
    _, line, _ = federate(tmp_path, grid, name)
    prefix = {"fedavg": "", "ist": "the client failed: "}[name]
    assert line["failures"] == {
        "client-0": f"{prefix}RuntimeError: client 0 is broken",
        "client-1": "no reply came in time",
    }
    counts = (line["clients_selected"], line["clients_replied"], line["clients_failed"])
    assert counts == (3, 1, 2)
    assert line["coverage"] == {"fedavg": 1.0, "ist": 0.5}[name]


@pytest.mark.parametrize("name", ["fedavg", "ist"])
def test_a_round_that_nobody_answered_is_an_error_and_on_the_disk(tmp_path, name):
    """Flower's FedAvg would go on with the old weights and say nothing."""
    app = tiny_app(fails=lambda _: True)
    with pytest.raises(TrainingFailedError, match=r"Round 1: .* of 2 .*client 1 is bro"):
        federate(tmp_path, NotingGrid(app, 2), name)
    first, last = read_run(tmp_path)
    assert (first["round"], last["round"]) == (0, 1)
    assert (last["clients_replied"], last["clients_failed"], last["coverage"]) == (0, 2, 0.0)
    assert last["wire_bytes_down"] > 0


def test_clients_of_one_name_are_told_apart(tmp_path):
    """One of them fails: the line has two clients and one failure."""
    app = tiny_app(name=lambda _: "same", fails=lambda k: k == 1)
    grid = NotingGrid(app, 2)
    nodes = list(grid.get_node_ids())
    _, line, _ = federate(tmp_path, grid, "ist")
    assert set(line["clients"]) == {"same", f"same-{nodes[1]}"}
    assert set(line["failures"]) == {f"same-{nodes[1]}"}
    assert (line["clients_selected"], line["clients_replied"], line["clients_failed"]) == (2, 1, 1)


def test_a_line_does_not_grow_with_the_clients_that_did_not_train(tmp_path, monkeypatch):
    """Round 0 asks 4 clients for their facts; with room for one, 3 are counted and not listed."""
    monkeypatch.setattr(recorder, "_MOST_OTHERS", 1)
    first, second, _ = federate(tmp_path, NotingGrid(tiny_app(), 4))
    assert len(first["clients"]) == 1
    assert first["clients_not_listed"] == 3
    assert first["messages_up"] == 4
    assert len(second["clients"]) == second["clients_selected"] == 4
    assert "clients_not_listed" not in second


def test_nodes_that_were_not_asked_are_named_after_their_ids(tmp_path):
    grid = NotingGrid(tiny_app(), 2)
    meter, strategy = MeteredGrid(grid), make("fedavg", ClientRegistry())
    record = RoundRecorder(meter, RunLog(tmp_path), strategy, evaluate, SETTINGS)
    strategy.start(grid=meter, initial_arrays=model(), num_rounds=1, evaluate_fn=record)
    names = {f"node-{node}" for node in grid.get_node_ids()}
    assert set(read_run(tmp_path)[1]["clients"]) == names


def test_a_round_without_messages_is_not_written_when_something_breaks(tmp_path):
    recorder = RoundRecorder(
        MeteredGrid(NotingGrid(tiny_app(), 1)),
        RunLog(tmp_path),
        make("fedavg", ClientRegistry()),
        evaluate,
        SETTINGS,
    )
    with pytest.raises(RuntimeError, match="elsewhere"), recorder:
        raise RuntimeError("elsewhere")
    assert (tmp_path / RUN_LOG).read_text() == ""


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        MetricRecord(),
        MetricRecord({"accuracy": math.nan, "loss": math.inf}),
        MetricRecord({"accuracy": [0.5], "loss": [1.0, 2.0]}),
    ],
)
def test_an_evaluation_without_a_number_is_null(tmp_path, metrics):
    rounds = federate(tmp_path, NotingGrid(tiny_app(), 2), evaluate=lambda *_: metrics)
    assert {(line["accuracy"], line["loss"]) for line in rounds} == {(None, None)}


def test_settings_may_be_empty(tmp_path):
    rounds = federate(tmp_path, NotingGrid(tiny_app(), 2), settings={})
    assert (rounds[0]["strategy"], rounds[0]["seed"]) == ("FedAvg", None)


def test_the_recorder_hands_the_evaluation_back(tmp_path):
    meter = MeteredGrid(NotingGrid(tiny_app(), 1))
    strategy = make("fedavg", ClientRegistry())
    recorder = RoundRecorder(meter, RunLog(tmp_path), strategy, evaluate, SETTINGS)
    assert recorder(0, model()) == evaluate(0, model())


def test_lines_are_plain_json_whatever_numpy_types_come_in(tmp_path):
    settings = {**SETTINGS, "learning-rate": np.float64(0.5)}
    federate(tmp_path, NotingGrid(tiny_app(), 2), settings=settings)
    for text in (tmp_path / RUN_LOG).read_text().splitlines():
        assert json.loads(text, parse_constant=pytest.fail)["settings"]["learning-rate"] == 0.5


def test_a_round_is_saved_when_its_line_is_in_the_log(tmp_path):
    saved: list[tuple[int, int]] = []

    def save(server_round: int, arrays: ArrayRecord) -> None:
        assert arrays.keys() == WEIGHTS.keys()
        saved.append((server_round, len(read_run(tmp_path))))

    federate(tmp_path, NotingGrid(tiny_app(), 2), save=save)
    assert saved == [(0, 1), (1, 2), (2, 3)]


def test_a_round_that_brought_nothing_is_not_saved(tmp_path):
    saved: list[int] = []
    broken = NotingGrid(tiny_app(fails=lambda _: True), 2)
    with pytest.raises(TrainingFailedError, match="none of 2 clients"):
        federate(tmp_path, broken, save=lambda number, _: saved.append(number))
    assert saved == [0]
    assert [line["round"] for line in read_run(tmp_path)] == [0, 1]


def test_a_log_that_goes_on_says_so_once(tmp_path):
    meter = MeteredGrid(NotingGrid(tiny_app(), 1))
    strategy = make("fedavg", ClientRegistry())
    recorder = RoundRecorder(meter, RunLog(tmp_path), strategy, evaluate, SETTINGS, resumed_after=4)
    recorder(5, model())
    recorder(6, model())
    assert [line.get("resumed_after") for line in read_run(tmp_path)] == [4, None]


def test_a_round_that_was_cut_short_names_the_error(tmp_path):
    def full(_: int, __: ArrayRecord) -> MetricRecord:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        federate(
            tmp_path,
            NotingGrid(tiny_app(), 2),
            evaluate=lambda number, arrays: (evaluate if number == 0 else full)(number, arrays),
        )
    lines = read_run(tmp_path)
    assert [line["round"] for line in lines] == [0, 1]
    assert (lines[1]["accuracy"], lines[1]["error"]) == (None, "OSError: the disk is full")


def test_a_log_that_cannot_be_written_hides_no_error(tmp_path, monkeypatch):
    def full(_: RunLog, __: dict[str, Any]) -> None:
        raise NotWrittenError("the log cannot be written")

    monkeypatch.setattr(RunLog, "append", full)
    with pytest.raises(NotWrittenError, match="the log cannot be written") as caught:
        federate(tmp_path, NotingGrid(tiny_app(), 2))
    assert caught.value.__context__ is None
