"""The answer of a search: in words, as a command to copy, as table, CSV, JSON, picture and page."""

from __future__ import annotations

import json
import shlex
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from flower_ist.compare.budget import Cost, Found, Question, best
from flower_ist.compare.figures import draw_answer
from flower_ist.compare.folder import ComparisonFolder
from flower_ist.compare.options import command_of
from flower_ist.compare.plan import NUM_ROUNDS, Plan, Run, value_text
from flower_ist.compare.report import megabytes, shown_settings, size
from flower_ist.console import cell
from flower_ist.files import write_file
from flower_ist.page import template
from flower_ist.tables import new_table, percent, to_csv

ANSWER_JSON = "answer.json"
ANSWER_CSV = "answer.csv"
ANSWER_PICTURE = "answer.png"
ANSWER_PAGE = "answer.html"
HEADINGS = ("first MB", "later MB", "rounds", "seeds", "valid. %", "test %", "MB")
"""MB of the first round and of a later one; then of as many rounds, with so many seeds."""
MOST_ROWS = 15
"""In the table for the terminal."""
# What the harness set for itself in each run: another run has its own.
_NOT_COPIED = ("output-dir", "keep-checkpoints", "node-timeout")


@dataclass(frozen=True)
class Candidate:
    """One entry of the grid, and what became of it."""

    name: str
    run: Run  # with seed 0
    cost: Cost | None  # None: its run failed
    stops: tuple[Found, ...]  # after each round that it did within the budget; none: too dear


@dataclass(frozen=True)
class Outcome:
    """What a search found."""

    question: Question
    answer: Found  # with a target that nothing reaches: the best on validation
    uploaded: int  # bytes of all tokens in int8
    candidates: tuple[Candidate, ...]  # in the order of the grid
    failed: Mapping[str, str]  # run -> why

    @property
    def is_reached(self) -> bool:
        """Whether the target is reached; True where there is none."""
        return self.question.is_reached(self.answer.validation)

    def sentence(self) -> str:
        """Return the answer in words."""
        found, question = self.answer, self.question
        choice = next(c.run.choice for c in self.candidates if c.name == found.candidate)
        settings = ", ".join(f"{key}={value_text(value)}" for key, value in choice.items())
        name = found.candidate.partition(" ")[0] + (f" with {settings}" if settings else "")
        mine = f"{name} for {found.rounds} round{'s'[: found.rounds != 1]}"
        spent = f"{size(found.wire_bytes)}{' a client' if question.per_client else ''}"
        if question.target and self.is_reached:
            first = f"{percent(question.target)} % with the fewest bytes: {mine}, {spent}."
        elif question.target:
            first = (
                f"Nothing reaches {percent(question.target)} %. The best found: {mine}, {spent}."
            )
        else:
            first = f"Best within {size(question.budget)}: {mine}, {spent}."
        accuracy, many = found.accuracy, found.seeds > 1
        span = f" ({percent(accuracy.low)} to {percent(accuracy.high)})" if many else ""
        mean = f", the mean of {found.seeds} seeds" if many else ""
        measured = (
            f"{percent(found.validation)} % on validation{mean}; "
            f"{percent(accuracy.median)} %{span} on test images that chose nothing."
        )
        less = "fewer" if self.uploaded < found.wire_bytes else "more"
        upload = (
            f"Uploading all tokens once in int8 takes {less} bytes, {size(self.uploaded)}, and "
            "gives the server every one of them."
        )
        return f"{first} {measured} {upload}"


def run_config(folder: ComparisonFolder, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Return what the answer's run config changes in the app's own, with seed 0."""
    run = next(c.run for c in outcome.candidates if c.name == outcome.answer.candidate)
    run = Run(run.strategy, {**run.choice, NUM_ROUNDS: outcome.answer.rounds}, 0)
    own = plan.usage.config
    return {
        key: value
        for key, value in folder.config(run, plan).items()
        if key not in _NOT_COPIED and value != own[key]
    }


def command_line(folder: ComparisonFolder, plan: Plan, outcome: Outcome) -> str:
    """Return the ``flwr run`` command of the answer."""
    app = "." if Path.cwd() == Path(plan.app) else shlex.quote(plan.app)
    return (
        f"flwr run {app} --stream --run-config {as_word(run_config(folder, plan, outcome))} "
        f'--federation-config "num-supernodes={plan.clients}"'
    )


def as_word(config: Mapping[str, Any]) -> str:
    """Return a run config as one word of a shell, as ``flwr run --run-config`` reads it.

    It is in double quotes where nothing in it means anything to a shell.
    """
    text = " ".join(f"{key}={_toml(value)}" for key, value in config.items())
    return shlex.quote(text) if any(char in text for char in '"$`\\!') else f'"{text}"'


def rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """Return for each candidate its name and a cell for each heading, the best first."""
    shown = []
    for candidate in outcome.candidates:
        found, cost = _shown_stop(outcome, candidate), candidate.cost
        later = megabytes(cost.later) if cost and cost.later else "-"
        costs = (megabytes(cost.first) if cost else "failed", later)
        cells = ("-",) * 5
        if found is not None:
            accuracies = (percent(found.validation), percent(found.accuracy.median))
            cells = (str(found.rounds), str(found.seeds), *accuracies, megabytes(found.wire_bytes))
        rank = (0, 0.0) if found is None else (-found.seeds, -found.validation)
        shown.append((rank, (candidate.name, *costs, *cells)))
    return [cells for _, cells in sorted(shown, key=lambda pair: pair[0])]


def to_table(outcome: Outcome) -> Table:
    """Return the best candidates as a table for the terminal."""
    table = new_table(padding=0)
    table.add_column("candidate", no_wrap=True)
    for heading in HEADINGS:
        first, _, second = heading.rpartition(" ")
        table.add_column(f"{first}\n{second}", justify="right", no_wrap=True)
    for name, *cells in rows(outcome)[:MOST_ROWS]:
        table.add_row(cell(name), *cells)
    return table


def write_answer(folder: ComparisonFolder, plan: Plan, outcome: Outcome) -> None:
    """Write the answer's files.

    Raises:
        FlowerIstError: matplotlib is not installed, or a file cannot be written.
    """
    picture = draw_answer(
        outcome.question, outcome.answer, _of_strategies(outcome), outcome.uploaded
    )
    command = command_line(folder, plan, outcome)
    facts = json.loads(plan.to_json())
    html = template("compare/answer.html.jinja").render(
        title="The fewest bytes" if outcome.question.target else "The best for the bytes",
        answer=outcome.sentence(),
        command=command,
        plan=facts,
        per_client=outcome.question.per_client,
        failed=outcome.failed,
        picture=b64encode(picture).decode(),
        headings=("candidate", *HEADINGS),
        rows=rows(outcome),
        settings=shown_settings(facts),
        again=command_of(plan),
    )
    files: dict[str, bytes | str] = {
        ANSWER_PICTURE: picture,
        ANSWER_CSV: _csv(outcome),
        ANSWER_JSON: _json(folder, plan, outcome, command),
        ANSWER_PAGE: html,
    }
    for name, content in files.items():
        write_file(folder.path / name, content)


def _json(folder: ComparisonFolder, plan: Plan, outcome: Outcome, command: str) -> str:
    content = {
        "reached": outcome.is_reached,
        "answer": asdict(outcome.answer),
        "run_config": run_config(folder, plan, outcome),
        "command": command,
        "token_upload_bytes": outcome.uploaded,
        "failed": dict(outcome.failed),
        "plan": json.loads(plan.to_json()),
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _csv(outcome: Outcome) -> str:
    """Return a line for each candidate after each of its rounds."""
    names = ("candidate", "rounds", "seeds", "wire_bytes", "validation_accuracy", "accuracy")
    stops = [
        (f.candidate, f.rounds, f.seeds, f.wire_bytes, f.validation, f.accuracy.median)
        for candidate in outcome.candidates
        for f in candidate.stops
    ]
    return to_csv([names, *stops])


def _shown_stop(outcome: Outcome, candidate: Candidate) -> Found | None:
    """Return the stop with which a candidate answers the question best."""
    if outcome.answer in candidate.stops:
        return outcome.answer
    return best(outcome.question, candidate.stops) or best(Question(), candidate.stops)


def _of_strategies(outcome: Outcome) -> dict[str, list[tuple[Found, ...]]]:
    found: dict[str, list[tuple[Found, ...]]] = {}
    for candidate in outcome.candidates:
        found.setdefault(candidate.run.strategy, []).append(candidate.stops)
    return found


def _toml(value: Any) -> str:
    """Return a value as Flower reads it in ``--run-config``."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    return json.dumps(value) if "'" in value or not value.isprintable() else f"'{value}'"
