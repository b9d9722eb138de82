"""The progress of a run: its log's lines, summarized for display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from flower_ist.runs.watch.follow import RunFollower, State

_RECENT_ROUNDS = 5  # their mean time predicts the time left


@dataclass(frozen=True)
class Progress:
    """A run at one moment. Bytes are wire bytes of all messages of all rounds so far.

    Attributes:
        name: of the run's folder.
        strategy: as set.
        round: the last completed round; None before the first line.
        total_rounds: the number of the run's last round; None if unknown.
        state: what the run is doing; ``reason`` says why it failed, or ended early.
        accuracies: of each round, 0 to 1; None where a round was not evaluated.
        losses: of each round.
        best: highest accuracy and its round (the first in case of a tie).
        bytes_down: server -> clients; ``bytes_up``: back.
        full_model_bytes: what each direction would have cost if every client that was asked to
            train had received, and sent, the whole model.
        coverage: share of the model's weights that some client trained in the last round.
        seconds: of the last round, by part.
        clients: name -> bytes down, bytes up, and number of rounds in which it failed.
        failures: (round, client, reason), oldest first.
        idle: seconds since the last line.
        eta: seconds until the last round is over; None if unknown or over.
    """

    name: str
    strategy: str
    round: int | None
    total_rounds: int | None
    state: State
    reason: str
    accuracies: list[float | None]
    losses: list[float | None]
    best: tuple[float, int] | None
    bytes_down: int
    bytes_up: int
    full_model_bytes: int
    coverage: float | None
    seconds: Mapping[str, float]
    clients: Mapping[str, tuple[int, int, int]]
    failures: list[tuple[int, str, str]]
    idle: float
    eta: float | None


def progress(run: RunFollower, now: float) -> Progress:
    """Summarize what a run has written so far.

    Args:
        run: a follower that was just polled.
        now: seconds since 1970.
    """
    rounds = run.rounds
    last: Mapping[str, Any] = rounds[-1] if rounds else {}
    state, reason = run.state()
    accuracies = [line.get("accuracy") for line in rounds]
    evaluated = [
        (accuracy, line["round"])
        for accuracy, line in zip(accuracies, rounds, strict=True)
        if accuracy is not None
    ]
    failures = [
        (line["round"], client, why)
        for line in rounds
        for client, why in line.get("failures", {}).items()
    ]
    idle = run.seconds_since_last_line(now)
    trained = [line for line in rounds if line["round"] > 0]
    return Progress(
        name=run.name,
        strategy=str(last.get("strategy") or run.settings.get("strategy", "")),
        round=last.get("round"),
        total_rounds=run.total_rounds,
        state=state,
        reason=reason,
        accuracies=accuracies,
        losses=[line.get("loss") for line in rounds],
        best=max(evaluated, key=lambda pair: pair[0], default=None),
        bytes_down=sum(line.get("wire_bytes_down", 0) for line in rounds),
        bytes_up=sum(line.get("wire_bytes_up", 0) for line in rounds),
        full_model_bytes=sum(
            line.get("clients_selected", 0) * (line.get("full_model_bytes") or 0)
            for line in trained
        ),
        coverage=last.get("coverage") if trained else None,
        seconds=last.get("seconds", {}),
        clients=_clients(rounds, failures),
        failures=failures,
        idle=idle,
        eta=_eta(trained, run.total_rounds, idle) if state is State.RUNNING else None,
    )


def _clients(
    rounds: Sequence[Mapping[str, Any]], failures: Sequence[tuple[int, str, str]]
) -> dict[str, tuple[int, int, int]]:
    down, up, failed = Counter[str](), Counter[str](), Counter(client for _, client, _ in failures)
    for line in rounds:
        for client, sent in line.get("clients", {}).items():
            down[client] += sent.get("wire_bytes_down", 0)
            up[client] += sent.get("wire_bytes_up", 0)
    return {name: (down[name], up[name], failed[name]) for name in sorted({*down, *failed})}


def _eta(trained: Sequence[Mapping[str, Any]], total: int | None, idle: float) -> float | None:
    """Return the seconds left if the coming rounds take as long as the last ones."""
    if total is None or not trained:
        return None
    took = fmean(sum(line.get("seconds", {}).values()) for line in trained[-_RECENT_ROUNDS:])
    rounds_left = int(total) - int(trained[-1]["round"])
    return max(0.0, rounds_left * took - idle)
