"""The server's events: what is written, when, and that nothing in it can stop a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from flower_ist.event_log import EVENT_LOG, EventLog, event_log
from flower_ist.inprocess import run_in_process
from flower_ist.runlog import RunLog, read_run
from server_app.app import app as server_app

LOG = logging.getLogger("flwr")


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / EVENT_LOG).read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return [event["event"] for event in read(folder)]


def test_a_real_run_tells_its_rounds_and_checkpoints(blob_config: Callable[..., dict[str, Any]]):
    config = blob_config(num_rounds=2)
    run_in_process(server_app, client_app, 4, config)
    folder = Path(config["output-dir"])
    assert names(folder) == [
        *("run-started", "round-ended", "checkpoint-written"),
        *("round-started", "round-ended", "checkpoint-written") * 2,
        "run-finished",
    ]
    ended = [event for event in read(folder) if event["event"] == "round-ended"]
    for event, line in zip(ended, read_run(folder), strict=True):
        for field in ("round", "accuracy", "wire_bytes_down", "clients_replied", "coverage"):
            assert event[field] == line[field]
    started = [event["round"] for event in read(folder) if event["event"] == "round-started"]
    assert started == [1, 2]
    assert not any(isinstance(handler, EventLog) for handler in LOG.handlers)


def test_a_run_whose_clients_fail_tells_who_and_why(blob_config: Callable[..., dict[str, Any]]):
    broken = ClientApp()
    broken.query()(client_app._registered_funcs["query.default"])

    @broken.train()
    def train(message: Any, context: Any) -> Any:
        raise RuntimeError("no memory")

    config = blob_config(num_rounds=2)
    with pytest.raises(Exception, match="no memory"):
        run_in_process(server_app, broken, 2, config)
    found = read(Path(config["output-dir"]))
    failed = [event for event in found if event["event"] == "client-failed"]
    assert {event["client"] for event in failed} == {"client-0", "client-1"}
    for event in failed:
        assert (event["round"], event["level"]) == (1, "WARNING")
        assert "no memory" in event["reason"]
    assert found[-1]["event"] == "run-failed"
    assert "no memory" in found[-1]["reason"]


def test_warnings_and_named_events_are_kept_and_chatter_is_not(tmp_path):
    with event_log(tmp_path):
        LOG.info("a table for people")
        LOG.info("Saved %d", 3, extra={"event": "saved", "file": Path("x")})
        LOG.warning("%s is late", "client-1")
        LOG.error("broken %s", "format %d")
    _, saved, late, broken, _ = read(tmp_path)
    assert (saved["event"], saved["text"], saved["file"]) == ("saved", "Saved 3", "x")
    assert (late["event"], late["level"], late["text"]) == (
        "message",
        "WARNING",
        "client-1 is late",
    )
    assert broken["level"] == "ERROR"
    assert datetime.fromisoformat(late["time"]).tzinfo is not None


def test_a_resumed_run_goes_on_after_its_rounds(tmp_path):
    log = RunLog(tmp_path)
    log.append({"round": 0})
    log.append({"round": 1})
    with pytest.raises(KeyboardInterrupt), event_log(tmp_path):
        raise KeyboardInterrupt
    with event_log(tmp_path):
        LOG.log(logging.INFO, "[ROUND %s/%s]", 1, 5)
        log.append({"round": 2, "failures": {"a": "late"}})
    found = read(tmp_path)
    assert [event["event"] for event in found] == [
        *("run-resumed", "run-failed", "run-resumed", "round-started"),
        *("client-failed", "round-ended", "run-finished"),
    ]
    assert (found[1]["error"], found[2]["after_round"], found[3]["round"]) == (
        "KeyboardInterrupt",
        1,
        2,
    )


def test_half_a_line_of_a_killed_run_is_ended(tmp_path):
    (tmp_path / EVENT_LOG).write_text('{"event": "half')
    with event_log(tmp_path):
        pass
    texts = (tmp_path / EVENT_LOG).read_text().splitlines()
    assert texts[0] == '{"event": "half'
    assert [json.loads(text)["event"] for text in texts[1:]] == ["run-started", "run-finished"]


def test_events_that_cannot_be_written_are_said_once_and_stop_nothing(tmp_path, capsys):
    (tmp_path / EVENT_LOG).mkdir()
    with event_log(tmp_path) as events:
        events.write("mine")
        LOG.warning("a sentence")
    text = capsys.readouterr().err
    assert text.count("Events are missing in") == 1


def test_a_damaged_run_log_stops_nothing(tmp_path, capsys):
    (tmp_path / "run.jsonl").write_text("nonsense\n")
    with event_log(tmp_path):
        pass
    assert "damaged line" in capsys.readouterr().err
