"""Include the statistics of clients that join a run after it has begun.

A run begins with the statistics of the clients that are connected then. Other devices join later,
and devices that were too slow to answer come back. They train with a prior and a head from the
others' statistics, and the others know nothing of a class that only they have. So they are also
asked for statistics when they are first met, and the prior and the head are renewed.

Nothing waits for their answers: these are fetched once per round. A renewed prior goes to all
clients again, so answers are held back until they hold a tenth of the examples so far, or a class
that no client had. A fleet that grows from 10 clients to 1,000 thus gets about 50 priors, not 990.

A client that tells another node's name has a name of its own here (:mod:`flower_ist.grids.names`)
and is asked like any other. It may be the same device, whose old node will be found to be gone: if
that one is counted, it is asked two rounds later. The same statistics are never counted twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType
from flwr.serverapp import Grid

from flower_ist.errors import ArgumentError
from flower_ist.grids.chain import Filter
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.prior import PriorOnce
from flower_ist.statistics.bounds import UnlikeOthersError
from flower_ist.statistics.sums import Statistics
from flower_ist.strategies.judge import BadReply
from flower_ist.wire.protocol import STATISTICS_QUERY
from flower_ist.wire.reported import is_superlink_error
from server_app.statistics_file import Counted
from server_app.warm_start import ClientSums, WarmStart

_SHARE_WORTH_A_PRIOR = 0.1
# Flower lists a killed node for up to a minute.
_ROUNDS_TO_BE_GONE = 2
_log = logging.getLogger("flwr")


class Newcomers(Filter):
    """Ask each new client for its statistics, for any strategy.

    Args:
        registry: gives the clients' names; a client that restarts under its name is not new.
        start: of the run, with statistics; it is renewed.
        priors: sends the prior, if there is one.
        folder: of the run, where the statistics are kept.
        current_round: returns the number of the present round.
        num_rounds: of the run.
    """

    def __init__(
        self,
        registry: ClientRegistry,
        start: WarmStart,
        priors: PriorOnce,
        folder: Path,
        current_round: Callable[[], int],
        num_rounds: int,
    ) -> None:
        self._registry = registry
        self._start = start
        self._priors = priors
        self._folder = folder
        self._current_round = current_round
        self._num_rounds = num_rounds
        self._asked: set[int] = set()
        self._met: dict[int, int] = {}  # node id -> round in which it was first here
        self._pending: dict[str, int] = {}  # message id -> node id
        self._waiting: dict[str, Statistics] = {}  # by client name

    def nodes(self, grid: Grid) -> Iterable[int]:
        """Return the ids of all nodes, and ask the new ones for statistics."""
        node_ids = list(grid.get_node_ids())
        self._fetch(grid)
        if self._is_worth_a_prior():
            self._count_in()
        self._ask(grid, node_ids)
        return node_ids

    def _ask(self, grid: Grid, node_ids: list[int]) -> None:
        if self._current_round() >= self._num_rounds:
            return  # nothing would fetch the answers
        new = [node_id for node_id in node_ids if self._is_new(node_id)]
        if not new:
            return
        _log.info("New since this run began: %s", ", ".join(map(self._registry.name, new)))
        content = self._sums.closed_form.question(ConfigRecord())
        questions = [Message(content, node_id, STATISTICS_QUERY) for node_id in new]
        grid.push_messages(questions)
        self._asked.update(new)
        self._pending |= {q.metadata.message_id: q.metadata.dst_node_id for q in questions}

    def _fetch(self, grid: Grid) -> None:
        """Fetch the answers that have arrived."""
        if not self._pending:
            return
        for reply in grid.pull_messages(list(self._pending)):
            node_id = self._pending.pop(reply.metadata.reply_to_message_id)
            if is_superlink_error(reply):
                self._asked.discard(node_id)  # it is gone; when it is back, it is asked again
                continue
            name, (num_classes, dim) = self._registry.name(node_id), self._sums.total.sums.shape
            if self._is_counted(name):
                continue  # it was restarted, and its old node has answered too
            try:
                told = self._sums.closed_form.judge(reply, (num_classes, dim), MessageType.QUERY)
                if not self._is_copy(told):
                    self._waiting[name] = self._bounded(name, told)
            except UnlikeOthersError as refusal:
                _log.warning("The statistics of %s are not counted in: %s", name, refusal)
            except BadReply as refusal:
                _log.warning(
                    "%s joined late and has no part in the statistics of this run, so a class that "
                    "only it has is hardly learnt: %s",
                    name,
                    refusal,
                )

    def _is_new(self, node_id: int) -> bool:
        """Return whether a node is to be asked now."""
        name, told = self._registry.name(node_id), self._registry.told_name(node_id)
        first = self._met.setdefault(node_id, self._current_round())
        if node_id in self._asked or self._is_counted(name):
            return False
        waits = self._current_round() < first + _ROUNDS_TO_BE_GONE
        return not (waits and told != name and self._is_counted(told))

    def _is_copy(self, told: Statistics) -> bool:
        """Return whether the same statistics are counted already, or wait for it."""
        digest = told.digest()
        waiting = (statistics.digest() for statistics in self._waiting.values())
        return self._sums.holds(digest) or digest in waiting

    def _bounded(self, name: str, told: Statistics) -> Statistics:
        """Return what counts of a client's statistics, and say so if it is not all."""
        bounded = self._sums.bounded(told)
        if bounded is not told:
            _log.warning(
                "%s counts for %s examples instead of its %s: see 'claim-bound'",
                name,
                f"{bounded.counts.sum():,.0f}",
                f"{told.counts.sum():,.0f}",
            )
        return bounded

    def _is_counted(self, name: str) -> bool:
        return name in self._sums.clients

    def _is_worth_a_prior(self) -> bool:
        if not self._waiting:
            return False
        counted = self._sums.total.counts
        more = np.sum([statistics.counts for statistics in self._waiting.values()], axis=0)
        is_first = (more > 0) & (counted == 0)
        return bool(is_first.any() or more.sum() >= _SHARE_WORTH_A_PRIOR * counted.sum())

    def _count_in(self) -> None:
        """Add pending statistics; if that fails, one by one, to leave out only faulty ones.

        Any client may be the cause: one whose tokens differ from the others' spoils the sums.
        """
        names = sorted(self._waiting)
        before = self._sums
        one_by_one = [[name] for name in names] if len(names) > 1 else []
        for part in [names, *one_by_one]:
            if all(map(self._is_counted, part)):
                continue
            try:
                more = {name: self._waiting[name] for name in part}
                counted = {n: Counted(float(s.counts.sum()), s.digest()) for n, s in more.items()}
                self._start.count_in(Statistics.total(list(more.values())), counted)
            except (ArgumentError, np.linalg.LinAlgError) as err:
                if len(part) == 1:
                    _log.warning("The statistics of %s are not counted in: %s", part[0], err)
            else:
                _log.info("The statistics of %s are counted in", ", ".join(part))
        self._waiting.clear()
        if self._sums is before:
            return
        if self._start.prior is not None:
            self._priors.renew(self._start.prior)
        self._start.save(self._folder)

    @property
    def _sums(self) -> ClientSums:
        assert self._start.sums is not None
        return self._start.sums
