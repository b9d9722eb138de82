"""A search on curves made by hand, and a real one whose command is run again."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import parse_config_args
from rich.console import Console

from flower_ist.compare import search as search_module
from flower_ist.compare.analyze import Point
from flower_ist.compare.answer import as_word
from flower_ist.compare.folder import ComparisonFolder
from flower_ist.compare.plan import NUM_ROUNDS, PlanError, Run
from flower_ist.compare.planning import make_plan, repeated_plan
from flower_ist.compare.runner import Runner, do_run
from flower_ist.compare.search import Search, search
from flower_ist.runs.app import load_app, run_in_process
from flower_ist.runs.log import read_run
from tests.fakes import ROOT
from tests.fakes.comparisons import StrictPage
from tests.fakes.runs import PNG

Of = Callable[[Run, int], Point | None]
"""A run's point after a round; None where the run fails."""


@dataclass
class NoRunner:
    """Notes what it is told to do: title and (run, rounds, seed)."""

    console: Console = field(default_factory=lambda: Console(file=StringIO()))
    failed: dict[str, str] = field(default_factory=dict)
    told: list[tuple[str, list[str]]] = field(default_factory=list)

    def execute(self, runs: Sequence[Run], title: str) -> None:
        self.told.append((title, [run.name for run in runs]))


class FakeSearch(Search):
    """A search whose runs' curves are given."""

    def __init__(self, of: Of, strategies: str = "ist", **options: Any) -> None:
        options = {"rounds": 8, "sweep": ["wire-dtype=int8"], **options}
        plan = make_plan(strategies=strategies, **options)
        self.runner, self.of = NoRunner(), of
        super().__init__(ComparisonFolder(Path("nowhere")), plan, self.runner)  # type: ignore[arg-type]

    def _curve(self, run: Run) -> list[Point]:
        rounds = range(1, int(run.choice.get(NUM_ROUNDS, 1)) + 1)
        return [point for number in rounds if (point := self.of(run, number)) is not None]

    def runs_of(self, title: str) -> list[str]:
        told = [names for about, names in self.runner.told if about.startswith(title)]
        return [name for names in told for name in names]


def width(run: Run) -> int:
    return int(run.choice.get("hidden-width", 0))


def test_the_schedule_on_curves_made_by_hand():
    """Eight widths, 100 bytes a round: 2 rounds for all 8, 4 for 4 of them, 8 for the same 4."""

    def better_if_wider(run: Run, number: int) -> Point:
        return Point(number, 100 * number, 0.5, width(run) / 10 + number / 1000)

    widths = "hidden-width=1,2,3,4,5,6,7,8"
    one = FakeSearch(better_if_wider, sweep=[widths, "wire-dtype=int8"], budget="800")
    answer = one.outcome().answer
    assert (answer.candidate, answer.rounds, answer.wire_bytes) == ("ist 8 int8", 8, 800)
    assert len(one.runs_of("bytes")) == 8
    assert all("local-steps=1+num-rounds=2" in name for name in one.runs_of("bytes"))

    def trained(title: str) -> list[tuple[int, int, int]]:
        pattern = r"ist-hidden-width=(\d+)\+num-rounds=(\d+)\+.*-seed(\d)"
        matches = [re.fullmatch(pattern, name) for name in one.runs_of(title)]
        return [tuple(map(int, match.groups())) for match in matches if match]  # type: ignore[misc]

    assert trained("rung 1") == [(n, 2, 0) for n in range(1, 9)]
    assert trained("rung 2") == [(n, 4, 0) for n in (8, 7, 6, 5)]
    assert trained("rung 3") == [(n, 8, 0) for n in (8, 7, 6, 5)]
    assert trained("finalists") == [(n, 8, seed) for seed in (1, 2) for n in (8, 7, 6, 5)]


def test_a_closed_form_is_run_once_a_seed():
    one = FakeSearch(lambda run, number: Point(1, 10, 0.5, 0.5), "ridge", budget="100")
    answer = one.outcome().answer
    assert (answer.candidate, answer.rounds, answer.seeds) == ("ridge", 1, 3)
    told = [names for _, names in one.runner.told if names]
    assert told[0] == ["ridge-default-seed0"]
    assert told[-1] == ["ridge-default-seed1", "ridge-default-seed2"]


def test_who_cannot_pay_for_a_round_waits_and_who_never_can_is_struck_out():
    """First rounds of 10, 60 and 101 of 100 bytes: the second is trained on the last rung only."""
    price = {1: 10, 2: 60, 3: 101}

    def dear(run: Run, number: int) -> Point:
        return Point(number, price[width(run)] * number, 0.5, width(run) / 10)

    sweep = ["hidden-width=1,2,3", "wire-dtype=int8"]
    one = FakeSearch(dear, sweep=sweep, budget="100")
    outcome = one.outcome()
    assert outcome.answer.candidate == "ist 2 int8"
    assert [len(one.runs_of(f"rung {n}")) for n in (1, 2, 3)] == [1, 1, 2]
    assert sum("hidden-width=2" in name for name in one.runs_of("rung 3")) == 1
    assert [len(candidate.stops) for candidate in outcome.candidates] == [8, 1, 0]
    assert not any("hidden-width=3" in name for name in one.runs_of("rung"))


def test_bytes_that_training_makes_larger_than_they_were_sized_are_metered():
    """Compact: 10 bytes a round where nothing is learned, 19 where something is."""

    def compact(run: Run, number: int) -> Point:
        size = 10 if "local-steps" in run.choice else 19
        return Point(number, size * number, 0.5, number / 10)

    answer = FakeSearch(compact, sweep=["hidden-width=1", "wire-dtype=int8"], budget="80").outcome()
    assert answer.answer is not None
    assert (answer.answer.rounds, answer.answer.wire_bytes) == (4, 76)


def test_a_target_is_reached_with_the_fewest_bytes():
    """Width 1 needs 3 rounds of 40 bytes, width 2 one of 100; 120 > 100."""

    def reached(run: Run, number: int) -> Point:
        wide = width(run) == 2
        return Point(number, (100 if wide else 40) * number, 0.5, 0.7 if wide else 0.25 * number)

    sweep = ["hidden-width=1,2", "wire-dtype=int8"]
    outcome = FakeSearch(reached, sweep=sweep, target=0.7).outcome()
    assert outcome.is_reached
    assert (outcome.answer.candidate, outcome.answer.wire_bytes) == ("ist 2 int8", 100)
    assert outcome.sentence().startswith(
        "70.00 % with the fewest bytes: "
        "ist with hidden-width=2, wire-dtype=int8 for 1 round, 0.1 kB."
    )


def test_a_target_out_of_reach_is_said_with_the_best_there_is():
    def flat(run: Run, number: int) -> Point:
        return Point(number, 40 * number, 0.5, width(run) / 10)

    sweep = ["hidden-width=1,2", "wire-dtype=int8"]
    outcome = FakeSearch(flat, sweep=sweep, target=0.9).outcome()
    assert not outcome.is_reached
    assert outcome.answer.candidate == "ist 2 int8"
    assert outcome.sentence().startswith("Nothing reaches 90.00 %. The best found: ist with")


def test_one_lucky_seed_does_not_reach_a_target():
    """For three rounds seed 0 has 0.8 and the others 0.6, which is 0.667 in the mean."""

    def lucky(run: Run, number: int) -> Point:
        share = 0.9 if number >= 4 else 0.8 if run.seed == 0 else 0.6
        return Point(number, 10 * number, 0.5, share)

    outcome = FakeSearch(lucky, sweep=["hidden-width=1", "wire-dtype=int8"], target=0.75).outcome()
    assert (outcome.answer.rounds, outcome.answer.seeds) == (4, 3)


def test_a_budget_too_small_names_the_least_that_would_do():
    def priced(run: Run, number: int) -> Point:
        return Point(number, 1000 * width(run) * number, 0.5, 0.5)

    sweep = ["hidden-width=3,2", "wire-dtype=int8"]
    refusal = "within 1,999 bytes: give at least 2,000, for which there is ist 2 int8"
    with pytest.raises(PlanError, match=refusal):
        FakeSearch(priced, sweep=sweep, budget="1999").outcome()
    assert FakeSearch(priced, sweep=sweep, budget="2000").outcome().is_reached


def test_the_least_that_would_do_is_that_of_a_trained_round():
    """Sized at 1,000 bytes, the first takes 1,200 when it trains, and 1,300 with seed 1."""

    def growing(run: Run, number: int) -> Point:
        grown = 0 if "local-steps" in run.choice else 200 + 100 * (run.seed == 1)
        first = {1: 1000 + grown, 2: 1250}[width(run)]
        return Point(number, first * number, 0.5, 0.5)

    sweep = ["hidden-width=1,2", "wire-dtype=int8"]
    with pytest.raises(PlanError, match="give at least 1,250, for which there is ist 2 int8"):
        FakeSearch(growing, sweep=sweep, budget="900").outcome()
    with pytest.raises(PlanError, match="give at least 1,300, for which there is ist 1 int8"):
        FakeSearch(growing, sweep=["hidden-width=1", sweep[1]], budget="900").outcome()
    assert FakeSearch(growing, sweep=sweep, budget="1250").outcome().answer.wire_bytes == 1250


def test_candidates_that_fail_are_out():
    def failing(run: Run, number: int) -> Point | None:
        return None if width(run) == 2 else Point(number, number, 0.5, 0.5)

    sweep = ["hidden-width=1,2", "wire-dtype=int8"]
    outcome = FakeSearch(failing, sweep=sweep, budget="100").outcome()
    assert outcome.answer.candidate == "ist 1 int8"
    for at_work in (lambda run: True, lambda run: "local-steps" not in run.choice):
        with pytest.raises(PlanError, match="No run was finished"):
            FakeSearch(
                lambda run, number, fails=at_work: None if fails(run) else Point(number, 1, 0, 0),
                budget="100",
            ).outcome()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"budget": "2 apples"}, "--budget is '2 apples', but must be bytes, such as 2MB, 500kB"),
        ({"budget": "-2MB"}, "--budget is '-2MB', but must be"),
        ({"budget": "nan"}, "but must be bytes"),
        ({"budget": "inf"}, "but must be bytes"),
        ({"budget_per_client": "0"}, "--budget-per-client is '0', but must be bytes"),
        ({"budget": ""}, "--budget is '', but must be bytes"),
        ({"target": 0.0}, "--target is 0, but must be an accuracy above 0 and at most 1: 0.7"),
        ({"target": 70.0}, "--target is 70, but must be"),
        ({"target": float("nan")}, "--target is nan, but must be"),
        ({"budget": "2MB", "target": 0.7}, "each ask another question: give one"),
        ({"budget": "2MB", "budget_per_client": "1MB"}, "give one"),
        ({"budget": "2MB", "plain": True}, "--plain fixes what is searched for"),
        ({"target": 0.7, "target_accuracy": 0.7}, "--target-accuracy is a mark in the tables"),
        ({"budget": "2MB", "strategies": "central,ist"}, "'central' is no federation"),
        ({"budget": "2MB", "settings": ["validation-share=0"]}, "set a 'validation-share' above 0"),
    ],
)
def test_questions_that_are_refused(options, sentence):
    with pytest.raises(PlanError, match=re.escape(sentence)):
        make_plan(**options)


@pytest.mark.parametrize("folder", ["/my data/shards", "/it's/$HOME", "/a`b`!", "/naïve"])
def test_a_command_survives_the_shell_and_flwr(folder):
    config = {
        "data-dir": folder,
        "wire-dtype": "int8:int4",
        "lda-skip": False,
        "seed": 0,
        "x": 1e-05,
    }
    (word,) = shlex.split(as_word(config))
    assert parse_config_args([word]) == config


@pytest.mark.parametrize(
    ("text", "size"),
    [("2MB", 2_000_000), ("500 kB", 500_000), ("1.5e6", 1_500_000), ("2MiB", 2**21), ("7", 7)],
)
def test_sizes(text, size):
    assert make_plan(budget=text).budget == size


def test_the_grid_is_that_of_the_command_line():
    plan = make_plan(budget="2MB", sweep=["hidden-width=8,16"], settings=["wire-dtype=int4"])
    assert plan.sweep == {"hidden-width": (8, 16)}
    assert plan.settings == {"validation-share": 0.5, "wire-dtype": "int4"}


class HereRunner(Runner):
    """Does runs as the workers do, but in this process."""

    def execute(self, runs: Sequence[Run], title: str) -> None:
        for run in {run.name: run for run in runs}.values():
            if not self.folder.is_done(run):
                config = self.folder.config(run, self.plan)
                self.folder.prepare(run, config)
                assert do_run(Path(self.plan.app), self.plan.engine, 2, config)


@pytest.fixture(scope="module")
def here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "Runner", HereRunner)
        yield


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, blobs: Path, here: None) -> Any:
    """A real search: 24 kB for two clients, who train a moment."""
    out, console = tmp_path_factory.mktemp("search") / "out", Console(file=StringIO(), width=120)
    answered = search(small_plan(blobs, budget="24kB"), out, console)
    return out, console.file.getvalue(), answered  # type: ignore[attr-defined]


def small_plan(blobs: Path, **question: Any) -> Any:
    settings = ["hidden-width=8", "local-steps=8", "batch-size=16"]
    grid = {"strategies": "ist,ist-plain", "sweep": ["wire-dtype=float32,compact"]}
    size = {"clients": 2, "rounds": 3, "seeds": 2, "data": blobs, "app": ROOT}
    return make_plan(settings=settings, **grid, **size, **question)


def test_the_files_of_a_search(searched):
    out, text, answered = searched
    assert answered
    assert "The grid has 4 candidates:\n  ist wire-dtype=float32,compact\n  ist-plain wire-" in text
    found = json.loads((out / "answer.json").read_text())
    assert 0 < found["answer"]["wire_bytes"] <= 24_000
    assert found["answer"]["seeds"] == 2
    page = StrictPage((out / "answer.html").read_text())
    assert page.ids == {"candidates", "settings"}
    assert found["command"] in page.text
    assert found["command"] in text
    assert (out / "answer.png").read_bytes().startswith(PNG)
    with (out / "answer.csv").open() as file:
        tried = list(csv.DictReader(file))
    assert all(int(row["wire_bytes"]) <= 24_000 for row in tried)
    # 250 rows of 12 numbers, a scale of two bytes and a label each, of two clients.
    assert found["token_upload_bytes"] == sum_of_tokens(found["plan"]["data"])


def sum_of_tokens(data: str) -> int:
    counts = [
        json.loads((Path(data) / f"client-{k}" / "meta.json").read_text())["num_examples"]
        for k in range(2)
    ]
    return sum(counts) * (12 + 2 + 1)


@pytest.mark.parametrize("fewer", [False, True])
def test_the_copied_command_does_what_was_chosen(searched, tmp_path, fewer):
    """Its settings, read as flwr reads them, give the run of seed 0: accuracies and bytes.

    So do fewer rounds, for the answer may be a part of a longer run.
    """
    found = json.loads((searched[0] / "answer.json").read_text())
    words = shlex.split(found["command"])
    assert words[:2] == ["flwr", "run"]
    given = parse_config_args([words[words.index("--run-config") + 1]])
    clients = parse_config_args([words[words.index("--federation-config") + 1]])["num-supernodes"]
    name = "ist-plain" if given.get("lda-skip") is False else "ist"
    app = load_app(ROOT)
    dtype = given.get("wire-dtype", app.config["wire-dtype"])
    logs = map(read_run, searched[0].glob(f"runs/{name}-num-rounds=*+wire-dtype={dtype}-seed0"))
    if fewer:
        given["num-rounds"] = 1
    config = {**app.config, **given, "output-dir": str(tmp_path / "run")}
    run_in_process(app.server_app, app.client_app, clients, config)
    lines = read_run(tmp_path / "run")
    assert len(lines) == given["num-rounds"] + 1
    spent = sum(line["wire_bytes_down"] + line["wire_bytes_up"] for line in lines)
    assert spent <= found["answer"]["wire_bytes"] <= 24_000
    for mine, theirs in zip(lines, max(logs, key=len), strict=False):
        for key in ("accuracy", "validation_accuracy", "loss", "wire_bytes_down", "wire_bytes_up"):
            assert mine[key] == theirs[key], key


def test_the_same_command_again_does_nothing_and_another_question_only_what_is_new(
    searched, blobs, tmp_path
):
    out = tmp_path / "again"
    shutil.copytree(searched[0], out)
    before = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/done.json")}
    console = Console(file=StringIO(), width=120)
    assert search(small_plan(blobs, budget="24kB"), out, console)
    assert {file: file.stat().st_mtime_ns for file in out.glob("runs/*/done.json")} == before
    assert search(small_plan(blobs, budget_per_client="12kB"), out, console)
    assert before.items() <= {f: f.stat().st_mtime_ns for f in out.glob("runs/*/done.json")}.items()
    answer = json.loads((out / "answer.json").read_text())["answer"]
    assert answer["wire_bytes"] <= 12_000
    assert repeated_plan(out).budget_per_client == 12_000


def test_rounds_are_metered_before_anything_is_trained(searched):
    """A slice of 4 neurons: 12 x 4 + 4 + 4 x 3 + 3 = 67 floats, down and up, of two clients."""
    out = searched[0]
    (sized,) = out.glob("runs/ist-plain-local-steps=1+num-rounds=2+wire-dtype=float32-seed0")
    _, first, later = read_run(sized)
    for line in (first, later):
        assert line["payload_bytes_down"] + line["payload_bytes_up"] == 4 * 67 * 4
    size = later["wire_bytes_down"] + later["wire_bytes_up"]
    for folder in out.glob("runs/ist-plain-num-rounds=*+wire-dtype=float32-seed*"):
        for line in read_run(folder)[2:]:
            assert line["wire_bytes_down"] + line["wire_bytes_up"] == pytest.approx(size, abs=8)


def test_the_run_config_has_nothing_of_the_harness(searched, blobs):
    found = json.loads((searched[0] / "answer.json").read_text())
    config = found["run_config"]
    assert config["data-dir"] == str(blobs)
    assert not {"output-dir", "node-timeout", "keep-checkpoints", "resume"} & config.keys()
