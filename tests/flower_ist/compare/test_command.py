"""A whole small comparison: what it refuses, the files that it leaves, and that it is fair."""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg
from markupsafe import escape
from matplotlib.image import imread
from rich.console import Console
from safetensors.numpy import load_file

from client_app import app as client_module
from client_app.batches import Batches
from flower_ist.classifier.mlp import initial_weights
from flower_ist.compare.analyze import analyze
from flower_ist.compare.command import (
    choose,
    compare,
    final_runs,
    tuning_runs,
    write_outcome,
)
from flower_ist.compare.figures import PICTURES
from flower_ist.compare.folder import ComparisonFolder
from flower_ist.compare.plan import Plan, PlanError, Run
from flower_ist.compare.report import to_html
from flower_ist.compare.runner import do_run
from flower_ist.compare.shards import pool
from flower_ist.grids.inprocess import InProcessGrid
from tests.fakes.comparisons import LOGS, StrictPage, tiny_plan
from tests.fakes.runs import PNG

BROWSERS = [
    name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)
]


def do(folder: ComparisonFolder, plan: Plan, runs: list[Run]) -> None:
    """Do runs as the workers do, but in this process."""
    for run in runs:
        config = folder.config(run, plan)
        folder.prepare(run, config)
        finished = do_run(Path(plan.app), plan.engine, run.clients(plan), config)
        assert finished, folder.failure(run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, blobs: Path) -> tuple[Path, Plan]:
    plan = tiny_plan(blobs, "ist,ridge,fedavg,central", target_accuracy=0.2)
    folder = ComparisonFolder(tmp_path_factory.mktemp("comparison"))
    folder.adopt(plan)
    pool(plan.data, plan.clients, folder.path / "pooled")
    choices = choose(folder, plan)
    do(folder, plan, final_runs(plan, choices))
    write_outcome(folder, plan, choices, {})
    return folder.path, plan


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "compare.csv").open() as file:
        return {row["strategy"]: row for row in csv.DictReader(file)}


def test_every_file_is_there(finished):
    folder, plan = finished
    assert list(rows_of(folder)) == list(plan.strategies)
    content = json.loads((folder / "compare.json").read_text())
    assert content["plan"]["data_sha256"] == plan.data_sha256
    assert content["target_accuracy"] == 0.2
    for name in PICTURES:
        assert (folder / name).read_bytes().startswith(PNG)


def test_the_report_is_one_sound_file_with_the_figures_of_the_csv(finished):
    folder = finished[0]
    page = StrictPage((folder / "report.html").read_text())
    assert page.ids == {"figures", "settings"}
    shows_the_figures(page, folder)
    assert "not federated" in page.text
    assert "--strategies ist,ridge,fedavg,central" in page.text


def shows_the_figures(page: StrictPage, folder: Path) -> None:
    """A page has all pictures, which can be decoded, and each figure of the CSV file to a digit."""
    assert len(page.images) == len(PICTURES)
    for source in page.images:
        png = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        assert imread(io.BytesIO(png)).shape == (495, 825, 4)  # 7.5 x 4.5 inches of 110 dots
    rows = rows_of(folder)
    shown: dict[str, dict[str, str]] = {}
    for row in filter(None, page.rows):  # a strategy has a row in each table
        shown.setdefault(row["strategy"], {}).update(row)
    assert shown.keys() == rows.keys()
    for name, figures in shown.items():
        assert len(figures) >= (15 if name != "central" else 6)
        assert figures == {column: rows[name][column] for column in figures}


def opens_in_a_browser(finished: tuple[Path, Plan], browser: str, tmp_path: Path) -> None:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    profile = f"--user-data-dir={tmp_path}"
    page = (finished[0] / "report.html").as_uri()
    done = subprocess.run(
        [browser, *flags, profile, "--dump-dom", page],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "CONSOLE" not in done.stderr
    shows_the_figures(StrictPage(done.stdout), finished[0])


if BROWSERS:  # where there is none, the strict parser alone has to do

    @pytest.mark.parametrize("browser", BROWSERS)
    def test_the_report_opens_in_a_browser(finished, browser, tmp_path):
        opens_in_a_browser(finished, browser, tmp_path)


def test_text_of_others_is_escaped():
    hostile = '<script>alert("x")</script>'
    plan = {
        "clients": 2,
        "rounds": 2,
        "seeds": 1,
        "data": hostile,
        "settings": {"a": hostile},
        "sweep": {"b": [hostile]},
    }
    comparison = analyze(LOGS, {"ist": hostile + '"'})
    text = to_html(comparison, plan, hostile, {}, {hostile: hostile})
    assert hostile not in text
    assert text.count(str(escape(hostile))) >= 6
    StrictPage(text)


def test_a_corrected_command_goes_on_where_nothing_was_finished(tmp_path, blobs):
    """One data set too few for the first: each run fails, and leaves nothing to be compared."""
    console = Console(file=io.StringIO())
    hopeless = tiny_plan(blobs, "ist", settings=["min-train-nodes=3"])
    with pytest.raises(PlanError, match="No run was finished"):
        compare(hopeless, tmp_path / "out", console)
    assert compare(tiny_plan(blobs, "ist"), tmp_path / "out", console)
    assert list(rows_of(tmp_path / "out")) == ["ist"]


def test_fedavg_is_bit_for_bit_flowers_own(finished):
    """The harness' run against Flower's strategy with Flower's loop: no meter, no recorder."""
    folder, plan = finished
    run = folder / "runs" / "fedavg-default-seed0"
    config = json.loads((run / "settings.json").read_text())
    trained = load_file(run / "model.safetensors")
    initial = initial_weights([12, 8, 3], seed=0)
    assert {name: array.shape for name, array in trained.items()} == {
        name: array.shape for name, array in initial.items()
    }
    keys = ("local-steps", "batch-size", "learning-rate", "seed")
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    result = strategy.start(
        grid=InProcessGrid(client_module.app, plan.clients, config),
        initial_arrays=ArrayRecord({name: Array(array) for name, array in initial.items()}),
        num_rounds=2,
        train_config=ConfigRecord({key: config[key] for key in keys}),
    )
    for name, array in result.arrays.items():
        assert trained[name].tobytes() == array.numpy().tobytes()
        assert trained[name].tobytes() != initial[name].tobytes()


def test_strategies_see_the_same_batches(tmp_path, blobs, monkeypatch):
    seen: dict[str, list[Any]] = {}
    real = client_module.train

    def watched(model: Any, batches: Batches, **options: Any) -> float:
        seen[strategy].append((batches.settings.server_round, batches.order().tolist()))
        return real(model, batches, **options)

    monkeypatch.setattr(client_module, "train", watched)
    plan = tiny_plan(blobs, "ist,fedavg")
    folder = ComparisonFolder(tmp_path)
    for strategy in plan.strategies:
        seen[strategy] = []
        do(folder, plan, [Run(strategy, {}, 0)])
    assert sorted(seen["ist"]) == sorted(seen["fedavg"])
    assert len(seen["ist"]) == 4


def test_central_trains_on_all_tokens_with_one_client(finished):
    log = (finished[0] / "runs" / "central-default-seed0" / "run.jsonl").read_text()
    last = json.loads(log.splitlines()[-1])
    assert list(last["clients"]) == ["pooled"]
    assert rows_of(finished[0])["central"]["wire_bytes"] == ""


def test_the_sweep_chooses_by_validation_and_never_by_test(tmp_path, blobs):
    plan = tiny_plan(blobs, "ist,fedavg", seeds=2, sweep=["learning-rate=0.001,0.1"])
    folder = ComparisonFolder(tmp_path)
    names = [run.name for run in tuning_runs(plan)]
    assert names == [
        f"{strategy}-learning-rate={rate}-seed0"
        for strategy in ("ist", "fedavg")
        for rate in ("0.001", "0.1")
    ]
    # Test accuracy is best where validation is worst.
    for name, validation in zip(names, (0.5, 0.6, 0.8, 0.7), strict=True):
        line = {
            "round": 1,
            "wire_bytes_down": 1,
            "wire_bytes_up": 1,
            "accuracy": 1 - validation,
            "validation_accuracy": validation,
        }
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.jsonl").write_text(json.dumps(line) + "\n")
        (tmp_path / "runs" / name / "done.json").write_text("{}")
    choices = choose(folder, plan)
    assert [c.settings["learning-rate"] for c in choices.values()] == [0.1, 0.001]
    stored = json.loads((tmp_path / "choices.json").read_text())
    assert stored["fedavg"] == {"settings": {"learning-rate": 0.001}, "validation_accuracy": 0.8}
    assert [run.name for run in final_runs(plan, choices)] == [
        "ist-learning-rate=0.1-seed0",
        "fedavg-learning-rate=0.001-seed0",
        "ist-learning-rate=0.1-seed1",
        "fedavg-learning-rate=0.001-seed1",
    ]


def test_nothing_is_chosen_without_validation(tmp_path, blobs):
    plan = tiny_plan(blobs, "ist", sweep=["learning-rate=0.001,0.1"])
    folder = ComparisonFolder(tmp_path)
    line = {"round": 1, "wire_bytes_down": 1, "wire_bytes_up": 1, "accuracy": 0.5}
    for run in tuning_runs(plan):
        folder.run_folder(run).mkdir(parents=True)
        (folder.run_folder(run) / "run.jsonl").write_text(json.dumps(line) + "\n")
        (folder.run_folder(run) / "done.json").write_text("{}")
    with pytest.raises(PlanError, match="validation-share"):
        choose(folder, plan)


def test_without_a_finished_run_there_is_a_sentence(tmp_path, blobs):
    plan = tiny_plan(blobs, "ist")
    with pytest.raises(PlanError, match="No run was finished"):
        write_outcome(
            ComparisonFolder(tmp_path), plan, choose(ComparisonFolder(tmp_path), plan), {}
        )
