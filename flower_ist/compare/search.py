"""What ``flower-ist compare --budget`` and ``--target`` do: size, strike out, halve, answer.

1. Each candidate of the grid does two rounds of one local step: its bytes are metered before
   anything is trained, and what cannot pay for a round is struck out.
2. Rungs (:mod:`flower_ist.compare.budget`) train what is left, with one seed.
3. The finalists are trained with all seeds, and the mean of their validation accuracies decides.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from flower_ist.compare.analyze import points, selected
from flower_ist.compare.answer import (
    ANSWER_PAGE,
    MOST_ROWS,
    Candidate,
    Outcome,
    command_line,
    to_table,
    write_answer,
)
from flower_ist.compare.budget import (
    FINALISTS,
    Cost,
    Curve,
    Found,
    Question,
    best,
    better_half,
    budgets,
    finalists,
    ranked,
    stops,
    weighed,
)
from flower_ist.compare.command import check_settings
from flower_ist.compare.folder import ComparisonFolder
from flower_ist.compare.plan import NUM_ROUNDS, Plan, PlanError, Run, grid, uses, value_text
from flower_ist.compare.report import size
from flower_ist.compare.runner import Runner
from flower_ist.compare.shards import token_bytes
from flower_ist.console import print_text
from flower_ist.runs.log import read_run
from flower_ist.tables import percent

_SIZING_STEPS = {"local-steps": 1}


def search(plan: Plan, out: Path, console: Console, jobs: int | None = None) -> bool:
    """Answer a plan's question, or go on with it, and write the answer into a folder.

    Args:
        plan: what to choose from, and what is asked.
        out: folder of the search; other questions about the same grid use its runs again.
        console: where progress and the answer go.
        jobs: runs at a time; None: as many as cores. The engine ``flwr`` does one.

    Returns:
        Whether the target was reached; True where none was asked for.

    Raises:
        FlowerIstError: nothing of the grid fits the budget, the app refuses a setting, a shard or
            a run log is damaged, or no run was finished.
    """
    began = time.monotonic()
    folder = ComparisonFolder(out)
    check_settings(folder, plan)
    with folder.locked():
        plan = folder.adopt(plan)
        jobs = 1 if plan.engine == "flwr" else jobs or os.cpu_count() or 1
        outcome = Search(folder, plan, Runner(folder, plan, jobs, console, tells=False)).outcome()
        write_answer(folder, plan, outcome)
    console.print(to_table(outcome))
    if (more := len(outcome.candidates) - MOST_ROWS) > 0:
        print_text(console, f"{more} more candidates are in the report.")
    for name, why in outcome.failed.items():
        print_text(console, f"{name} failed: {why}")
    print_text(console, outcome.sentence())
    print_text(console, command_line(folder, plan, outcome))
    print_text(console, f"{time.monotonic() - began:.0f} s. Report: {folder.path / ANSWER_PAGE}")
    return outcome.is_reached


class Search:
    """One search: what its candidates cost, and what they reached so far.

    Args:
        folder: of the search, locked.
        plan: what to choose from.
        runner: does the runs.
    """

    def __init__(self, folder: ComparisonFolder, plan: Plan, runner: Runner) -> None:
        self._folder, self._plan, self._runner = folder, plan, runner
        self._question = Question(
            budget=plan.budget or plan.budget_per_client or math.inf,
            target=plan.target,
            per_client=bool(plan.budget_per_client),
        )
        self._candidates = {
            " ".join([name, *map(value_text, choice.values())]): Run(name, choice, 0)
            for name in plan.strategies
            for choice in grid(plan, name)
        }
        self._costs: dict[str, Cost] = {}
        self._curves: dict[tuple[str, int], Curve] = {}  # of candidate and seed: the longest run's

    def outcome(self) -> Outcome:
        """Do what has not been done yet, and return the answer.

        Raises:
            PlanError: nothing fits the budget, or no run was finished.
            RunLogError: a run log is damaged.
        """
        self._tell_grid()
        self._size()
        alive = [n for n, cost in self._costs.items() if cost.first <= self._question.budget]
        if not alive:
            raise self._too_small()
        answer = self._climb(alive)
        if not self._curves:
            raise self._nothing_finished()
        if answer is None:
            raise self._too_small()  # with what was learned, a first round was dearer
        return Outcome(
            question=self._question,
            answer=answer,
            uploaded=token_bytes(self._plan.data, self._plan.clients, self._question.per_client),
            candidates=tuple(map(self._as_candidate, self._candidates)),
            failed=self._runner.failed,
        )

    def _climb(self, alive: list[str]) -> Found | None:
        """Halve the candidates rung by rung, and return the answer.

        With a target that nothing reaches it is the best on validation.
        """
        limits = budgets(self._question, [self._costs[n] for n in alive], self._plan.rounds)
        order, limit = list[str](), 0.0
        for rung, limit in enumerate(limits, 1):
            able = [name for name in alive if self._rounds(name, limit)]
            self._train(able, limit, (0,), f"rung {rung}: {size(limit)}")
            curves = {n: c for n in able if (c := self._curves.get((n, 0)))}
            order = ranked(curves, limit)
            alive = [name for name in alive if name not in able] + better_half(order)
            self._tell_rung(rung, limit, order)
            found = self._with_all_seeds(finalists(self._question, curves, limit), limit)
            if (answer := best(self._question, found)) is not None:
                return answer
            done = all(self._rounds(name, limit) == self._most(name) for name in alive)
            if self._question.target and done:
                break  # more bytes bring nobody any further
        if not self._question.target:
            return None
        return best(Question(), self._with_all_seeds(order[:FINALISTS], limit))

    def _with_all_seeds(self, names: Sequence[str], limit: float) -> list[Found]:
        self._train(names, limit, range(self._plan.seeds), "finalists")
        return [found for name in names for found in self._stops(name, limit)]

    def _size(self) -> None:
        """Meter every candidate's bytes, without training."""
        known = _SIZING_STEPS.keys() <= self._plan.usage.config.keys()
        extra = {**(_SIZING_STEPS if known else {}), NUM_ROUNDS: min(2, self._plan.rounds)}
        runs = {
            name: Run(run.strategy, {**run.choice, **extra}, 0) if self._trains(name) else run
            for name, run in self._candidates.items()
        }
        self._runner.execute(list(runs.values()), "bytes")
        for name, run in runs.items():
            if curve := self._curve(run):
                self._costs[name] = Cost.of(curve)
        if not self._costs:
            raise self._nothing_finished()

    def _train(self, names: Iterable[str], limit: float, seeds: Iterable[int], title: str) -> None:
        """Train candidates for as many rounds as they can pay for, where they have not been."""
        runs: dict[tuple[str, int], Run] = {}
        for name, seed in ((name, seed) for seed in seeds for name in names):
            rounds, run = self._rounds(name, limit), self._candidates[name]
            if rounds > len(self._curves.get((name, seed), ())):
                length = {NUM_ROUNDS: rounds} if self._trains(name) else {}
                runs[name, seed] = Run(run.strategy, {**run.choice, **length}, seed)
        self._runner.execute(list(runs.values()), title)
        for key, run in runs.items():
            if curve := self._curve(run):
                self._curves[key] = curve
                # In compact a message's size depends on what was learned, and so on the seed.
                before, now = self._costs[key[0]], Cost.of(curve, self._costs[key[0]].later)
                self._costs[key[0]] = Cost(max(before.first, now.first), now.later)

    def _curve(self, run: Run) -> Curve:
        if not self._folder.is_done(run):
            return ()
        lines = read_run(self._folder.run_folder(run))
        return points(lines, per_client=self._question.per_client)

    def _rounds(self, name: str, limit: float) -> int:
        return self._costs[name].rounds(limit, self._most(name))

    def _most(self, name: str) -> int:
        return self._plan.rounds if self._trains(name) else 1

    def _trains(self, name: str) -> bool:
        return uses(self._plan, self._candidates[name].strategy, NUM_ROUNDS)

    def _stops(self, name: str, limit: float) -> list[Found]:
        curves = [c for seed in range(self._plan.seeds) if (c := self._curves.get((name, seed)))]
        return stops(name, curves, limit)

    def _as_candidate(self, name: str) -> Candidate:
        stopped = tuple(self._stops(name, self._question.budget))
        return Candidate(name, self._candidates[name], self._costs.get(name), stopped)

    def _too_small(self) -> PlanError:
        """Return the refusal of a budget, with the least that would do.

        Whether a sized first round is as dear once it trains is asked of the cheapest only.
        """
        trained: set[str] = set()
        while True:
            name = min(self._costs, key=lambda name: self._costs[name].first)
            if name in trained:
                break
            trained.add(name)
            first = self._costs[name].first
            self._train([name], first, range(self._plan.seeds), f"least: {size(first)}")
        return PlanError(
            f"Nothing of the grid does its first round within {self._question.budget:,.0f} bytes: "
            f"give at least {self._costs[name].first:,}, for which there is {name}."
        )

    def _nothing_finished(self) -> PlanError:
        return PlanError(f"No run was finished: see {self._folder.path / 'runs'}.")

    def _tell_grid(self) -> None:
        lines = [f"The grid has {len(self._candidates)} candidates:"]
        for strategy in self._plan.strategies:
            choices = grid(self._plan, strategy)
            varied = {key: dict.fromkeys(value_text(c[key]) for c in choices) for key in choices[0]}
            texts = [f"{key}={','.join(values)}" for key, values in varied.items()]
            lines.append(" ".join([f"  {strategy}", *texts]))
        print_text(self._runner.console, "\n".join(lines))

    def _tell_rung(self, rung: int, limit: float, order: Sequence[str]) -> None:
        if not order:
            return
        first = selected(weighed(self._curves[order[0], 0], limit))
        accuracy = percent(first.validation if first else None)
        print_text(
            self._runner.console,
            f"Rung {rung}, {size(limit)}: {len(order)} candidates, the best {order[0]} with "
            f"{accuracy} % on validation.",
        )
