"""Keep the statistics of a run up to date: clients join it after it has begun, and data change.

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

Images may join a client's shard or leave it. The client says so
(:meth:`flower_ist.grids.clients.ClientRegistry.renew`), is asked again, and its new statistics take
the place of its old ones, in the same bounds as a newcomer's. Growth waits like newcomers do; where
a class has fewer examples, or the data are others but no more, the old ones are out at once. Images
that are replaced by more of the same classes cannot be told from growth, and wait with it. From one
such question of a client to the next one it takes 2 rounds, then 4, 8 and so on: nobody can make
the server send a new prior to everyone in each round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType
from flwr.serverapp import Grid
from numpy.typing import NDArray

from flower_ist.errors import ArgumentError
from flower_ist.grids.chain import Filter
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.prior import PriorOnce
from flower_ist.statistics.bounds import UnlikeOthersError
from flower_ist.statistics.sums import Statistics
from flower_ist.strategies.judge import BadReply
from flower_ist.wire.protocol import STATISTICS_QUERY
from flower_ist.wire.reported import is_superlink_error
from server_app.statistics_file import Counted, read_part
from server_app.warm_start import ClientSums, WarmStart

_SHARE_WORTH_A_PRIOR = 0.1
# Flower lists a killed node for up to a minute.
_ROUNDS_TO_BE_GONE = 2
_log = logging.getLogger("flwr")


@dataclass(frozen=True)
class _Waiting:
    """Statistics that are to be counted in.

    Attributes:
        new: what counts of them.
        shard: what the client called its data when it was asked.
        old: what counted of the client's data until now, if anything.
    """

    new: Statistics
    shard: str
    old: Statistics | None = None

    @property
    def more(self) -> NDArray[np.int64]:
        """Examples of each class (C,) that are new; below 0 where some were withdrawn."""
        return self.new.counts if self.old is None else self.new.counts - self.old.counts

    @property
    def has_lost(self) -> bool:
        """Whether data were withdrawn: those that changed, and are no more, are others."""
        return bool((self.more < 0).any() or not self.more.any())


class Newcomers(Filter):
    """Ask each new client, and each whose data have changed, for statistics, for any strategy.

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
        # Nodes that may have to be asked: the others are counted as they are now.
        self._open: set[int] = set()
        self._asked: dict[int, str] = {}  # node id -> what its data were called then
        self._met: dict[int, int] = {}  # node id -> round in which it was first here
        self._pending: dict[str, tuple[int, str]] = {}  # message id -> the same
        self._waiting: dict[str, _Waiting] = {}  # by client name
        # By client name: the round from which changed data may be asked about, and the next pause.
        self._pauses: dict[str, tuple[int, int]] = {}

    def nodes(self, grid: Grid) -> Iterable[int]:
        """Return the ids of all nodes, and ask the new ones for statistics."""
        node_ids = list(grid.get_node_ids())
        self._fetch(grid)
        self._forget_outdated(node_ids)
        if self._waiting and self._is_worth_a_prior():
            self._count_in()
        self._ask(grid, node_ids)
        return node_ids

    def _ask(self, grid: Grid, node_ids: list[int]) -> None:
        if self._current_round() >= self._num_rounds:
            return  # nothing would fetch the answers
        changed, new = [], []
        self._open |= self._registry.noted_since()
        for node_id in sorted(self._open.intersection(node_ids), key=self._registry.name):
            if self._registry.name(node_id) not in self._sums.clients:
                new += [node_id] * self._is_new(node_id)
            elif not self._has_changed(node_id):
                self._open.remove(node_id)
            elif self._may_be_asked(node_id):
                changed.append(node_id)
        for what, nodes in (("New since this run began", new), ("Changed data", changed)):
            if nodes:
                _log.info("%s: %s", what, ", ".join(map(self._registry.name, nodes)))
        if not (new or changed):
            return
        content = self._sums.closed_form.question(ConfigRecord())
        questions = [Message(content, node_id, STATISTICS_QUERY) for node_id in new + changed]
        grid.push_messages(questions)
        for question in questions:
            node_id = question.metadata.dst_node_id
            asked = node_id, self._registry.shard(node_id)
            self._asked[node_id] = asked[1]
            self._pending[question.metadata.message_id] = asked

    def _fetch(self, grid: Grid) -> None:
        """Fetch the answers that have arrived."""
        if not self._pending:
            return
        for reply in grid.pull_messages(list(self._pending)):
            node_id, shard = self._pending.pop(reply.metadata.reply_to_message_id)
            if is_superlink_error(reply):
                self._asked.pop(node_id, None)  # it is gone; when it is back, it is asked again
                self._open.add(node_id)
                continue
            name = self._registry.name(node_id)
            counted = self._sums.clients.get(name)
            if counted is not None and counted.shard == shard:
                continue  # it was restarted, and its old node has answered too
            try:
                told = self._sums.closed_form.judge(reply, self._shape, MessageType.QUERY)
                if not self._is_copy(told):
                    self._waiting[name] = self._part(name, told, shard, counted)
            except UnlikeOthersError as refusal:
                _log.warning("The statistics of %s are not counted in: %s", name, refusal)
            except BadReply as refusal:
                _log.warning(
                    "%s %s no part in the statistics of this run, so a class that only it has is "
                    "hardly learnt: %s",
                    name,
                    "joined late and has" if counted is None else "has new data, and they have",
                    refusal,
                )

    def _forget_outdated(self, node_ids: list[int]) -> None:
        """Forget what waits of data that have changed since: some of them may be withdrawn."""
        for node_id in node_ids if self._waiting else ():
            waiting = self._waiting.get(self._registry.name(node_id))
            if waiting is not None and waiting.shard != self._registry.shard(node_id):
                del self._waiting[self._registry.name(node_id)]

    def _is_new(self, node_id: int) -> bool:
        """Return whether a node whose client is not counted is to be asked now."""
        name, told = self._registry.name(node_id), self._registry.told_name(node_id)
        first = self._met.setdefault(node_id, self._current_round())
        if self._asked.get(node_id) == self._registry.shard(node_id):
            return False
        waits = self._current_round() < first + _ROUNDS_TO_BE_GONE
        return not (waits and told != name and told in self._sums.clients)

    def _has_changed(self, node_id: int) -> bool:
        """Return whether a client's data are others than those that are counted, by its word."""
        shard, counted = self._registry.shard(node_id), self._sums.clients
        before = counted[self._registry.name(node_id)].shard
        # One that never said what its data are called says nothing by it now.
        return "" not in (shard, before) and shard not in (before, self._asked.get(node_id))

    def _may_be_asked(self, node_id: int) -> bool:
        """Return whether a client may be asked about a change now; the next pause is longer."""
        name, now = self._registry.name(node_id), self._current_round()
        due, pause = self._pauses.get(name, (0, 2))
        if now >= due:
            self._pauses[name] = (now + pause, 2 * pause)
        return now >= due

    def _part(self, name: str, told: Statistics, shard: str, counted: Counted | None) -> _Waiting:
        """Return what of a client's statistics is to be counted in, and in whose place.

        Raises:
            UnlikeOthersError: nothing is.
        """
        if counted is None or not counted.digest:
            return _Waiting(self._bounded(name, told, self._sums), shard)
        old = read_part(self._folder, counted.digest, *self._shape)
        if old is None:
            raise UnlikeOthersError(
                "what it counted for before is no longer in the run's folder, so that it cannot be "
                "replaced"
            )
        return _Waiting(self._bounded(name, told, self._sums.without(name, old)), shard, old)

    def _is_copy(self, told: Statistics) -> bool:
        """Return whether the same statistics are counted already, or wait for it."""
        digest = told.digest()
        waiting = (waiting.new.digest() for waiting in self._waiting.values())
        return self._sums.holds(digest) or digest in waiting

    def _bounded(self, name: str, told: Statistics, others: ClientSums) -> Statistics:
        """Return what counts of a client's statistics, and say so if it is not all."""
        bounded = others.bounded(told)
        if bounded is not told:
            _log.warning(
                "%s counts for %s examples instead of its %s: see 'claim-bound'",
                name,
                f"{bounded.counts.sum():,.0f}",
                f"{told.counts.sum():,.0f}",
            )
        return bounded

    def _is_worth_a_prior(self) -> bool:
        if any(waiting.old is not None and waiting.has_lost for waiting in self._waiting.values()):
            return True
        counted = self._sums.total.counts
        more = np.sum([waiting.more for waiting in self._waiting.values()], axis=0)
        is_first = (more > 0) & (counted == 0)
        return bool(is_first.any() or more.sum() >= _SHARE_WORTH_A_PRIOR * counted.sum())

    def _count_in(self) -> None:
        """Add pending statistics; if that fails, one by one, to leave out only faulty ones.

        Any client may be the cause: one whose tokens differ from the others' spoils the sums.
        """
        names, before = sorted(self._waiting), self._sums
        if not self._try_to_count(names):
            for name in names if len(names) > 1 else ():
                self._try_to_count([name])
        self._waiting.clear()
        if self._sums is before:
            return
        if self._start.prior is not None:
            self._priors.renew(self._start.prior)
        self._start.save(self._folder)

    def _try_to_count(self, names: list[str]) -> bool:
        """Add the statistics of some clients, if a prior and a head follow from the sums then."""
        part = {name: self._waiting[name] for name in names}
        try:
            self._start.count_in(
                {name: waiting.new for name, waiting in part.items()},
                {name: waiting.shard for name, waiting in part.items()},
                [waiting.old for waiting in part.values() if waiting.old is not None],
            )
        except (ArgumentError, np.linalg.LinAlgError) as err:
            if len(names) == 1:
                _log.warning("The statistics of %s are not counted in: %s", *names, err)
            return False
        _log.info("The statistics of %s are counted in", ", ".join(names))
        return True

    @property
    def _sums(self) -> ClientSums:
        assert self._start.sums is not None
        return self._start.sums

    @property
    def _shape(self) -> tuple[int, int]:
        num_classes, dim = self._sums.total.sums.shape
        return num_classes, dim
