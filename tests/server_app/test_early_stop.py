"""A run that ends before its last round: at a target, after a patience, and when it is resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from client_app.app import app as client_app
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.runs.watch.follow import RunFollower, State
from server_app.app import app as server_app
from server_app.early_stop import EarlyStop


def reasons(rule: EarlyStop, accuracies: Sequence[float | None]) -> list[str]:
    lines = [{"round": number, "accuracy": value} for number, value in enumerate(accuracies)]
    return [rule.why(line) for line in lines]


@pytest.mark.parametrize(
    ("target", "patience", "accuracies", "end"),
    [
        (0.0, 0, [0.9, 0.1, 0.1, 0.1], None),
        (0.8, 0, [0.1, 0.79, 0.8, 0.1], 2),
        (0.8, 0, [0.9, 0.7, 0.7], None),  # the model before round 1 ends no run
        (0.0, 2, [0.1, 0.5, 0.4, 0.5, 0.6], 3),  # as good is not better
        (0.0, 2, [0.1, 0.5, 0.4, 0.6, 0.5, 0.5], 5),
        (0.0, 2, [0.6, 0.5, 0.5, 0.7], 2),  # no better than before round 1
        (0.0, 1, [0.1, None, 0.2], 1),
        (0.5, 3, [0.1, 0.2, None, 0.5], 3),
    ],
)
def test_the_first_round_that_ends_a_run(target, patience, accuracies, end):
    told = reasons(EarlyStop(target, patience), accuracies)
    assert next((number for number, why in enumerate(told) if why), None) == end


def test_rounds_that_changed_nothing_use_up_no_patience():
    rule = EarlyStop(0.0, 2)
    told = [
        rule.why({"round": number, "accuracy": 0.5, "coverage": coverage, "clients_replied": 1})
        for number, coverage in enumerate([0.0, 1.0, 0.0, 0.0, 1.0])
    ]
    assert told[:4] == [""] * 4
    assert "the 0.5000 of round 0 for 2 rounds" in told[4]


def test_the_validation_part_decides_where_there_is_one():
    rule = EarlyStop(0.8, 0)
    line = {"round": 1, "accuracy": 0.9, "validation_accuracy": 0.7}
    assert rule.why(line) == ""
    assert rule.why({**line, "round": 2, "validation_accuracy": 0.85}) == (
        "validation_accuracy 0.8500 has reached 'target-accuracy' 0.8"
    )


def serve(config: dict[str, Any]) -> list[dict[str, Any]]:
    run_in_process(server_app, client_app, 3, config)
    return read_run(Path(config["output-dir"]))


def test_a_run_ends_at_its_target_whole_and_goes_on_for_a_higher_one(blob_config):
    whole = serve(blob_config(num_rounds=6))
    target = whole[2]["accuracy"]
    assert max(whole[1]["accuracy"], 0.5) < target < max(line["accuracy"] for line in whole[3:])

    config = blob_config(num_rounds=6, target_accuracy=target)
    lines = serve(config)
    assert [line["accuracy"] for line in lines] == [line["accuracy"] for line in whole[:3]]
    assert "has reached 'target-accuracy'" in lines[-1]["stopped"]
    assert not any("stopped" in line or "error" in line for line in lines[:-1])
    folder = Path(config["output-dir"])
    assert (folder / "model.safetensors").exists()
    follower = RunFollower(folder)
    follower.poll()
    assert follower.state() == (State.FINISHED, lines[-1]["stopped"])

    # The same command again finds it finished.
    again = {**config, "resume": True}
    assert serve(again) == lines
    # With a higher target it goes on, with the bits of a run that never stopped.
    rest = serve({**again, "target-accuracy": 0.0})
    assert [line["accuracy"] for line in rest] == [line["accuracy"] for line in whole]
    assert rest[3]["resumed_after"] == 2


def test_patience_is_counted_over_a_resume(blob_config):
    """Nothing is learnt at a rate of 1e-12: no round is better than round 0."""
    config = blob_config(num_rounds=1, learning_rate=1e-12, patience=3)
    assert len(serve(config)) == 2
    lines = serve({**config, "num-rounds": 9, "resume": True})
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    assert "for 3 rounds ('patience')" in lines[-1]["stopped"]
