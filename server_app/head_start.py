"""What is known before the first round: the clients' summed statistics, and what follows from them.

Asked for once, as closed-form ridge asks for them, they give a prior that clients train with
(:mod:`flower_ist.token_prior`) and a ridge head to predict with (:mod:`flower_ist.ridge_blend`).
They are kept in the run's folder, so that a run that goes on after a stop goes on with the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from flower_ist.clients import AdmittingGrid, Client, Roster
from flower_ist.closed_form import CLASS_SUMS_AND_GRAM, Head, Statistics, statistics_layout
from flower_ist.closed_form_strategy import METHODS, ClosedFormStrategy, empty_head
from flower_ist.durable import write_durably
from flower_ist.meter import MeteredGrid
from flower_ist.packing import layout_of
from flower_ist.ridge_blend import RidgeBlend
from flower_ist.token_prior import TokenPrior
from server_app.settings import Settings, SettingsError

STATISTICS_FILE = "statistics.safetensors"
# int16 loses nothing that matters here, at about a quarter of the bytes that exact ridge takes.
_WIRE_DTYPE = "int16"
# What was summed in float64 is kept to the bit: a run that goes on gets the same head.
_FILE_DTYPE = "float64"
_log = logging.getLogger("flwr")


@dataclass(frozen=True)
class HeadStart:
    """What a run begins with besides its initial weights.

    Attributes:
        prior: what clients train with; None for nothing.
        blend: what predicts beside the net; None for nothing.
        statistics: what both follow from; None if nothing was asked.
        known: names of the clients whose statistics these are; of a run that goes on, of all that
            it has met.
    """

    prior: TokenPrior | None = None
    blend: RidgeBlend | None = None
    statistics: Statistics | None = None
    known: Collection[str] = ()

    def save(self, folder: Path) -> None:
        """Write the statistics into the run's folder, if there are any.

        Raises:
            NotWrittenError: they cannot be written.
        """
        if self.statistics is not None:
            write_durably(folder / STATISTICS_FILE, save(self.statistics.to_tensors(_FILE_DTYPE)))

    def net(self, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the net for tokens as they are, from the weights that are trained."""
        return dict(weights) if self.prior is None else self.prior.fold(weights)

    def model(self, net: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return all arrays that prediction needs: the net, and ``ridge.*`` if there is a blend."""
        arrays = dict(net)
        if self.blend is not None:
            arrays |= {"ridge.weight": self.blend.weight, "ridge.bias": self.blend.bias}
        return arrays


class NewcomerCheck:
    """A check of clients that also warns, once, of one that has no part in a run's statistics.

    Statistics are asked for before the first round alone: whoever comes later trains with what
    follows from the others'.

    Args:
        check: returns why a client cannot take part, or an empty text.
        start: of the run.
    """

    def __init__(self, check: Callable[[Client], str], start: HeadStart) -> None:
        self._check = check
        self._statistics = start.statistics
        self._known = set(start.known)

    def __call__(self, client: Client) -> str:
        """Return what the check says of a client."""
        reason = self._check(client)
        if not reason and self._statistics is not None and client.name not in self._known:
            self._known.add(client.name)
            _log.warning(
                "%s has no part in the statistics that this run began with, so a class that only "
                "it has is hardly learnt: begin a new run to count it in",
                client.name,
            )
        return reason


def wants_head_start(settings: Settings) -> bool:
    """Return whether the settings ask for statistics before the first round.

    Closed-form strategies ask for their own.
    """
    return settings.strategy not in METHODS and (
        settings.standardise or settings.replay or settings.ridge_blend > 0
    )


def head_start(
    settings: Settings,
    folder: Path,
    met: Collection[str] | None,
    meter: MeteredGrid,
    check: Callable[[Client], str],
    roster: Roster,
    shape: Sequence[int],
    score: Callable[[Head], float] | None,
) -> HeadStart:
    """Return what a run begins with; the clients are asked unless the run goes on.

    Args:
        settings: of the run.
        folder: of the run; nothing is written to it here.
        met: names of the clients that the run has met, if it goes on, with the statistics in its
            folder; None for a new run.
        meter: the grid to the clients; its bytes and failures are counted in round 0.
        check: returns why a client cannot take part, or an empty text.
        roster: the clients met so far.
        shape: (D, C).
        score: gives a head's score on validation data, if there are any.

    Raises:
        TrainingFailedError: too few clients answered.
        SettingsError: the run goes on, but the file of its statistics cannot be read.
        ValueError: nothing follows from the clients' statistics.
    """
    if not wants_head_start(settings):
        return HeadStart()
    dim, num_classes = shape
    blends = settings.ridge_blend > 0
    ridge = ClosedFormStrategy(
        method="ridge",
        # Without a blend no head is solved for, so there is nothing to choose.
        penalties=settings.penalties() if blends else (1.0,),
        score=score,
        wire_dtype=_WIRE_DTYPE,
        max_examples=settings.max_examples,
        node_timeout=settings.node_timeout,
        roster=roster,
        min_train_nodes=settings.min_train_nodes,
        min_available_nodes=settings.min_available_nodes,
    )
    if met is not None:
        total, known = _read(folder / STATISTICS_FILE, dim, num_classes), met
    else:
        _log.info("Asking the clients for the statistics of their tokens")
        grid = AdmittingGrid(meter, roster, check)
        questions = ridge.configure_train(0, empty_head(dim, num_classes), ConfigRecord(), grid)
        replies = grid.send_and_receive(questions, timeout=settings.round_timeout)
        total = ridge.sum_up(0, replies)
        traffic, refused = meter.traffic(0), ridge.last_round.refused
        # The run log asks another strategy, the one that trains, whose replies were refused.
        traffic.failures |= refused
        known = [roster.name(node_id) for node_id in traffic.selected - refused.keys()]
    prior = blend = None
    if settings.standardise or settings.replay:
        prior = TokenPrior.from_statistics(
            total, standardise=settings.standardise, replay=settings.replay
        )
    if blends:
        blend = RidgeBlend.of_head(ridge.solve([total]), settings.ridge_blend)
    return HeadStart(prior, blend, total, known)


def _read(file: Path, dim: int, num_classes: int) -> Statistics:
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as err:
        raise SettingsError(
            f"{file}, the statistics that this run began with, cannot be read: {err}; begin "
            "another run."
        ) from err
    if layout_of(tensors) != statistics_layout(num_classes, dim, CLASS_SUMS_AND_GRAM, _FILE_DTYPE):
        raise SettingsError(
            f"{file} does not hold the statistics that this run began with: begin another run."
        )
    return Statistics.from_tensors(tensors)
