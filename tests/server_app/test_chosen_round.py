"""Which round's model a run keeps: by hand, and in runs whose training does harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from client_app.app import app as client_app
from flower_ist.classifier.predictor import load_classifier
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.tokens.shard import open_shard
from server_app.app import app as server_app
from server_app.chosen_round import ChosenRound
from server_app.evaluation import split_shard
from server_app.run_folder import write_model

MakeConfig = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("accuracies", "chosen"),
    [
        ([0.5, 0.46, 0.44], [0, 1, 1]),  # sqrt(0.5 x 0.5 / 100) = 0.05 below 0.5 is 0.45
        ([0.5, 0.44, 0.8, 0.77, 0.75], [0, 0, 2, 3, 3]),  # sqrt(0.8 x 0.2 / 100) = 0.04
        ([0.5, 0.8, 0.77, 0.81, 0.765], [0, 1, 2, 3, 3]),  # the best counts, not the chosen one
        ([1.0, 0.999, 1.0], [0, 0, 2]),
        ([0.0, 0.0], [0, 1]),
    ],
)
def test_the_last_round_within_a_standard_error_of_the_best(accuracies, chosen):
    rule = ChosenRound(100)
    found = []
    for number, accuracy in enumerate(accuracies):
        taken = rule.look(number, accuracy)
        assert taken == (rule.number == number)
        found.append(rule.number)
    assert found == chosen


def test_a_resumed_run_knows_the_rounds_of_its_log():
    lines = [{"round": n, "validation_accuracy": a} for n, a in enumerate([0.5, 0.8, 0.6])]
    rule = ChosenRound(100, [{"round": 0}, *lines])
    assert rule.number == 1
    assert not rule.look(3, 0.75)
    assert rule.why() == (
        "round 1, as later ones are worse than the best by more than the standard error of 100 "
        "validation examples,"
    )
    assert rule.look(4, 0.77)
    assert rule.why() == "last round, 4, which is within the noise of the best on validation,"


@pytest.fixture
def harmful(blob_config: MakeConfig) -> dict[str, Any]:
    """Steps so large that the head's accuracy, that of round 0, is lost."""
    return blob_config(
        num_rounds=2,
        local_steps=3,
        hidden_width=8,
        learning_rate=100.0,
        validation_share=0.5,
        standardize=True,
        lda_skip=True,
    )


def model_round(run: Path) -> str:
    with safe_open(run / "model.safetensors", "np") as file:
        return (file.metadata() or {})["round"]


def test_a_run_whose_training_does_harm_keeps_the_model_of_round_0(harmful, blobs: Path):
    run_in_process(server_app, client_app, 4, harmful)
    run = Path(harmful["output-dir"])
    lines = read_run(run)
    assert lines[2]["validation_accuracy"] < lines[0]["validation_accuracy"] - 0.1
    assert str([line["model_round"] for line in lines]) == "[0, 0, 0]"
    assert model_round(run) == "0"
    tokens, labels = split_shard(open_shard(blobs / "test"), 0.5)[1].batch(slice(None))
    found = load_classifier(run).probabilities(tokens).argmax(axis=1)
    assert (found == labels).mean() == pytest.approx(lines[0]["accuracy"])
    card = (run / "README.md").read_text()
    assert f"{100 * lines[0]['accuracy']:.2f} % of {len(labels)} test examples" in card
    assert "right after round 0, chosen on other examples, whose model this is" in card


def test_without_a_validation_part_the_last_rounds_model_is_kept(harmful):
    run_in_process(server_app, client_app, 4, harmful | {"validation-share": 0.0})
    run = Path(harmful["output-dir"])
    assert "model_round" not in read_run(run)[-1]
    assert model_round(run) == "2"
    assert (
        "right after round 2, the last one, whose model this is" in (run / "README.md").read_text()
    )


def test_a_resumed_run_chooses_as_if_it_had_not_stopped(harmful):
    run = Path(harmful["output-dir"])
    run_in_process(server_app, client_app, 4, harmful | {"num-rounds": 1})
    kept = (run / "model.safetensors").read_bytes()
    run_in_process(server_app, client_app, 4, harmful | {"resume": True})
    assert read_run(run)[-1]["model_round"] == 0
    assert (run / "model.safetensors").read_bytes() == kept


def test_a_model_whose_checkpoint_is_missing_is_not_the_runs(harmful):
    """The run was stopped after it wrote round 2's model, and before round 2's checkpoint."""
    run = Path(harmful["output-dir"])
    run_in_process(server_app, client_app, 4, harmful | {"num-rounds": 1})
    kept = (run / "model.safetensors").read_bytes()
    write_model(run / "model.next.safetensors", load_classifier(run).net, {"round": 2})
    run_in_process(server_app, client_app, 4, harmful | {"resume": True})
    assert read_run(run)[-1]["model_round"] == 0
    assert (run / "model.safetensors").read_bytes() == kept
    assert not (run / "model.next.safetensors").exists()


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_model_whose_checkpoint_is_there_is_the_runs(harmful, rounds):
    """The run was stopped after it wrote round 1's checkpoint, and before the model's last name."""
    harmful |= {"learning-rate": 1e-3}  # each round is chosen
    run = Path(harmful["output-dir"])
    run_in_process(server_app, client_app, 4, harmful | {"num-rounds": 1})
    (run / "model.safetensors").rename(run / "model.next.safetensors")
    (run / "README.md").unlink()
    run_in_process(server_app, client_app, 4, harmful | {"num-rounds": rounds, "resume": True})
    assert model_round(run) == str(rounds) == str(read_run(run)[-1]["model_round"])
    assert not (run / "model.next.safetensors").exists()


def test_a_chosen_model_that_is_lost_does_not_hold_a_later_one_back(harmful, caplog):
    run = Path(harmful["output-dir"])
    run_in_process(server_app, client_app, 4, harmful | {"num-rounds": 1})
    (run / "model.safetensors").unlink()
    run_in_process(server_app, client_app, 4, harmful | {"resume": True})
    assert "lacks the model of round 0, which validation had chosen" in caplog.text
    assert model_round(run) == "2"


def test_the_card_of_a_finished_run_tells_of_its_rounds_only(harmful):
    """A third round was stopped by an error, and the run is asked for two."""
    run = Path(harmful["output-dir"])
    run_in_process(server_app, client_app, 4, harmful)
    card = (run / "README.md").read_text()
    (run / "README.md").unlink()
    failed = {**read_run(run)[-1], "round": 3, "accuracy": None, "error": "it was"}
    with (run / "run.jsonl").open("a") as log:
        log.write(json.dumps(failed) + "\n")
    run_in_process(server_app, client_app, 4, harmful | {"resume": True})
    assert (run / "README.md").read_text().splitlines()[:22] == card.splitlines()[:22]
    assert len(read_run(run)) == 3
