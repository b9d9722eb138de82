"""What is known before the first round: the clients' summed statistics, and what follows from them.

Requested once, as for closed-form ridge regression, they give a prior that clients train with
(:mod:`flower_ist.statistics.prior`) and a closed-form head inside the net
(:mod:`flower_ist.classifier.skip`). They are kept in the run's folder, so that a resumed run uses
the same ones. Clients that join later are included (:mod:`server_app.newcomers`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from flower_ist.classifier.skip import LinearSkip
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.metered import Meter
from flower_ist.statistics.bounds import Others
from flower_ist.statistics.prior import TokenPrior
from flower_ist.statistics.scale import TokenScale
from flower_ist.statistics.sums import Statistics
from flower_ist.strategies.closed_form import ClosedFormStrategy, empty_head
from flower_ist.wire.protocol import COMPACT
from flower_ist.wire.reported import is_superlink_error
from server_app.build import Score, build_closed_form
from server_app.settings import Settings
from server_app.statistics_file import Counted, read_statistics, write_statistics
from server_app.strategies import CLOSED_FORM

_log = logging.getLogger("flwr")


@dataclass
class WarmStart:
    """What a run has besides the weights that it trains.

    Attributes:
        prior: what clients train with; None for nothing.
        skip: the closed-form head inside the net; None for none.
        sums: what both follow from; None if nothing was asked.
        unsaved: parts of the sums, as clients sent them, that are not on the disk yet.
    """

    prior: TokenPrior | None = None
    skip: LinearSkip | None = None
    sums: ClientSums | None = None
    unsaved: list[Statistics] = field(default_factory=list)

    @classmethod
    def of(cls, sums: ClientSums) -> WarmStart:
        """Return what follows from the clients' sums.

        Raises:
            ArgumentError: nothing does.
        """
        skip = sums.skip()
        return cls(sums.prior(skip), skip, sums)

    def count_in(
        self, new: Mapping[str, Statistics], shards: Mapping[str, str], old: Sequence[Statistics]
    ) -> None:
        """Change the sums, and renew the prior and the head.

        Tokens are standardized as before, so that the net that is being trained still fits.

        Args:
            new: statistics by client name, of those who joined later or whose data have changed.
            shards: client name -> what it calls its data.
            old: what counted until now of those whose data have changed.

        Raises:
            ArgumentError: nothing follows from the statistics; all is as it was.
        """
        assert self.sums is not None
        counted = {name: Counted.of(part, shards[name]) for name, part in new.items()}
        renewed = WarmStart.of(self.sums.changed(list(new.values()), counted, old))
        self.prior, self.skip, self.sums = renewed.prior, renewed.skip, renewed.sums
        self.unsaved += new.values()

    def save(self, folder: Path) -> None:
        """Write the statistics into the run's folder, if there are any.

        Raises:
            NotWrittenError: they cannot be written.
        """
        if self.sums is not None:
            sums = self.sums
            write_statistics(folder, sums.total, sums.scale, sums.clients, self.unsaved)
            self.unsaved.clear()

    def net(self, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the net for raw tokens, from the trained weights."""
        return dict(weights) if self.prior is None else self.prior.fold(weights)

    def model(self, net: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return all arrays that prediction needs: the net, and ``skip.*`` if there is a skip."""
        arrays = dict(net)
        if self.skip is not None:
            arrays |= {"skip.weight": self.skip.weight, "skip.bias": self.skip.bias}
        return arrays


@dataclass(frozen=True)
class ClientSums:
    """The clients' summed statistics, and how a run's prior and head follow from them.

    Attributes:
        settings: of the run.
        closed_form: asks for statistics, judges and solves.
        total: the sums.
        scale: what tokens are standardized by; None if they are not.
        clients: by name, those who answered when they were asked, refused answers among them.
    """

    settings: Settings
    closed_form: ClosedFormStrategy
    total: Statistics
    scale: TokenScale | None
    clients: Mapping[str, Counted] = field(default_factory=dict)

    def prior(self, skip: LinearSkip | None) -> TokenPrior | None:
        """Return what clients train with, if the settings ask for anything."""
        replay = self.settings.replay
        if not (self.scale or replay or skip):
            return None
        scale = self.scale or TokenScale.none(self.total.sums.shape[1])
        prior = TokenPrior.from_statistics(self.total, scale, replay=replay)
        return prior if skip is None else prior.with_head(skip.weight, skip.bias)

    def skip(self) -> LinearSkip | None:
        """Return the head inside the net, if the settings ask for it."""
        if not self.settings.lda_skip:
            return None
        return LinearSkip.of_head(self.closed_form.solve([self.total]))

    def changed(
        self, new: Sequence[Statistics], clients: Mapping[str, Counted], old: Sequence[Statistics]
    ) -> ClientSums:
        """Return the sums with some clients' statistics in place of their old ones, if any.

        These sums stay as they are.
        """
        total = Statistics.total([self.total, *new])
        for part in old:
            total.subtract(part)
        named = {**self.clients, **clients}
        return ClientSums(self.settings, self.closed_form, total, self.scale, named)

    def without(self, name: str, part: Statistics) -> ClientSums:
        """Return the sums of the other clients."""
        others = self.changed([], {}, [part])
        clients = {other: counted for other, counted in self.clients.items() if other != name}
        return replace(others, clients=clients)

    def bounded(self, statistics: Statistics) -> Statistics:
        """Return what counts of the statistics of a client that is not among these.

        Raises:
            UnlikeOthersError: nothing does.
        """
        sizes = [part.examples for part in self.clients.values() if part.examples]
        others = Others.counted(self.total, sizes)
        if others is None or not self.settings.claim_bound:
            return statistics
        return others.bounded(statistics, self.settings.claim_bound)

    def holds(self, digest: str) -> bool:
        """Return whether the same statistics are among the sums already."""
        return any(part.digest == digest for part in self.clients.values())


def closed_form_for(
    settings: Settings, registry: ClientRegistry, score: Score | None
) -> ClosedFormStrategy | None:
    """Return what asks the clients before the first round; None if the settings need nothing.

    Closed-form strategies ask for their own statistics.

    Args:
        settings: of the run.
        registry: the clients met so far.
        score: gives a head's score on validation data, if there are any.

    Raises:
        SettingsError: a setting is invalid.
    """
    wanted = settings.standardize or settings.replay or settings.lda_skip
    if settings.strategy in CLOSED_FORM or not wanted:
        return None
    return build_closed_form(settings, registry, score, COMPACT)


def warm_start(
    settings: Settings,
    closed_form: ClosedFormStrategy | None,
    resumed: Path | None,
    grid: Grid,
    meter: Meter,
    shape: tuple[int, int],
) -> WarmStart:
    """Return what a run begins with; the clients are asked unless the run is resumed.

    Args:
        settings: of the run.
        closed_form: from :func:`closed_form_for`.
        resumed: folder of a resumed run, which holds its statistics; None for a new run.
        grid: to the clients that take part.
        meter: of the grid; a refused client is a failure of round 0.
        shape: (C, D).

    Raises:
        TrainingFailedError: too few clients answered.
        SettingsError: the run is resumed, but its statistics file cannot be read.
        ArgumentError: nothing follows from the clients' statistics.
    """
    if closed_form is None:
        return WarmStart()
    if resumed is not None:
        total, scale, clients = read_statistics(resumed, *shape, scaled=settings.standardize)
        return WarmStart.of(ClientSums(settings, closed_form, total, scale, clients))
    _log.info("Asking the clients for the statistics of their tokens")
    num_classes, dim = shape
    questions = closed_form.configure_train(0, empty_head(dim, num_classes), ConfigRecord(), grid)
    replies = list(grid.send_and_receive(questions, timeout=settings.round_timeout))
    counted = closed_form.what_counts(0, replies)
    total = Statistics.total(list(counted.values()))
    # The run log asks another strategy, the one that trains, whose replies were refused.
    meter.traffic(0).failures |= closed_form.last_round.refused
    meter.traffic(0).bounded |= closed_form.last_round.bounded
    scale = TokenScale.of(total) if settings.standardize else None
    name = closed_form.registry.name
    shard = closed_form.registry.shard
    answered = {
        name(n): Counted(shard=shard(n))
        for n in (reply.metadata.src_node_id for reply in replies if not is_superlink_error(reply))
    }
    parts = {name(n): Counted.of(part, shard(n)) for n, part in counted.items()}
    sums = ClientSums(settings, closed_form, total, scale, {**answered, **parts})
    start = WarmStart.of(sums)
    start.unsaved += counted.values()
    return start
