"""Schemes of sub-models: which neurons each client trains.

A scheme is a function ``(seed, server round, widths, shares) -> neuron indices by width, for each
slot``: pure numpy, no state, the same answer anywhere. Everything else (cutting, sending, judging,
merging) is shared, so a new scheme is one such function and a :class:`SubmodelScheme` around it.
Rounds count from 1, as Flower's do.

Scale. ``scaled`` schemes send summed weights times H / n (:mod:`flower_ist.submodels.cut`). In a
ReLU net this is dropout's division of kept activations by the keep rate, moved into the weights of
the next layer, and thus also HeteroFL's "static scaler". Learning rates follow the scale
(``lr-scales``), so Adam changes the model's own weights as it would with the division in the net.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from flower_ist.submodels.partition import PartitionError, partition, permutation, slice_sizes

Slots = list[dict[str, NDArray[np.intp]]]
Draw = Callable[[int, int, Mapping[str, int], Sequence[float]], Slots]


@dataclass(frozen=True)
class SubmodelScheme:
    """How the neurons are given to clients, and what follows from it for merging.

    Attributes:
        name: as in settings and run logs.
        title: as in logs for people.
        draw: ``(seed, server_round, widths, shares)`` -> for each of the shares, the slot's sorted
            neuron indices by width.
        disjoint: slots divide the neurons among them and shares are relative sizes; otherwise each
            slot is a client's own, slots may overlap, and a share is a part of each width, 0 to 1.
        scaled: summed weights travel times H / n.
        weighted: a weight is the mean of its holders by examples; otherwise the plain mean.
        ensemble: the slots divide the neurons and are the same in all rounds, so they are separate
            nets, whose averaged logits are evaluated in addition to the merged model.
    """

    name: str
    title: str
    draw: Draw
    disjoint: bool
    scaled: bool = True
    weighted: bool = True
    ensemble: bool = False


def ist(seed: int, server_round: int, widths: Mapping[str, int], shares: Sequence[float]) -> Slots:
    """Divide all neurons anew in each round: Independent Subnetwork Training.

    Yuan et al., VLDB 2022, https://arxiv.org/abs/1910.02120, algorithm 1. Differences are listed
    in docs/method.md; the scale is ours.
    """
    return partition(seed, server_round, widths, len(shares), shares)


def ist_fixed(
    seed: int, server_round: int, widths: Mapping[str, int], shares: Sequence[float]
) -> Slots:
    """Keep the partition of round 1 in all rounds: an ensemble of narrow nets.

    The baseline that IST has to beat: Cheng et al., "Does Federated Dropout Actually Work?", CVPR
    workshops 2022, find such an ensemble ahead of Federated Dropout. Weights between neurons of
    different slots are never trained. In the paper each net has its own clients; here it goes to
    another client in each round, as IST's slices do, so that it sees all data.
    """
    return partition(seed, 1, widths, len(shares), shares)


def federated_dropout(
    seed: int, server_round: int, widths: Mapping[str, int], shares: Sequence[float]
) -> Slots:
    """Draw for each client, independently, a fixed number of neurons of each width.

    Caldas et al. 2018, https://arxiv.org/abs/1812.07210, on Federated Dropout: a fixed number of
    activations is dropped from each dense layer, so that all sub-models of one rate have the same
    shape. Ours: kept activations count 1 / (share kept), as in dropout, and where sub-models
    overlap a weight is the mean over its holders by examples, as in FedAvg. The paper's compression
    of what is sent is left out.
    """
    return [
        {
            name: np.sort(
                permutation(seed, server_round, f"{name} of slot {slot}", width)[
                    : _kept(width, share)
                ]
            )
            for name, width in widths.items()
        }
        for slot, share in enumerate(shares)
    ]


def heterofl(
    seed: int, server_round: int, widths: Mapping[str, int], shares: Sequence[float]
) -> Slots:
    """Give each client the first neurons of each width: nested sub-models, the same in all rounds.

    Diao et al., HeteroFL, ICLR 2021, https://arxiv.org/abs/2010.01264, section 3: a client of rate
    r holds the first ``ceil(r H)`` neurons (``split_model`` in the authors' fed.py), and a weight
    is the plain mean over the clients that hold it (``combine``). The scaler 1/r is folded into the
    weights, with the exact H / n in place of the nominal 1/r. The paper's masked loss and batch
    norm statistics are left out: a client trains an ordinary MLP.
    """
    return [
        {name: np.arange(_kept(width, share)) for name, width in widths.items()} for share in shares
    ]


def fedrolex(
    seed: int, server_round: int, widths: Mapping[str, int], shares: Sequence[float]
) -> Slots:
    """Give each client a window of neurons that moves on by one neuron in each round.

    Alam et al., FedRolex, NeurIPS 2022, https://arxiv.org/abs/2212.01548, section 3: in round
    j = 0, 1, ... a client holds neurons ``j mod H`` and those that follow, around the end. A weight
    is the plain mean over its holders and nothing is scaled. In the authors' code the window moves
    the other way (``torch.roll``), its length is rounded up as here (the paper rounds down), and
    HeteroFL's scaler is still there as an option.
    """
    start = max(0, server_round - 1)
    return [
        {
            name: np.sort((start + np.arange(_kept(width, share))) % width)
            for name, width in widths.items()
        }
        for share in shares
    ]


SCHEMES: Mapping[str, SubmodelScheme] = {
    scheme.name: scheme
    for scheme in (
        SubmodelScheme("ist", "Independent Subnetwork Training", ist, disjoint=True),
        SubmodelScheme(
            "ist-fixed", "Ensemble of narrow nets", ist_fixed, disjoint=True, ensemble=True
        ),
        SubmodelScheme("federated-dropout", "Federated Dropout", federated_dropout, disjoint=False),
        SubmodelScheme("heterofl", "HeteroFL", heterofl, disjoint=False, weighted=False),
        SubmodelScheme(
            "fedrolex", "FedRolex", fedrolex, disjoint=False, scaled=False, weighted=False
        ),
    )
}


def submodel_scheme(name: str) -> SubmodelScheme:
    """Return the scheme of this name.

    Raises:
        PartitionError: there is none.
    """
    if name not in SCHEMES:
        raise PartitionError(f"There is no sub-model {name!r}: choose one of {', '.join(SCHEMES)}.")
    return SCHEMES[name]


def check_sizes(
    scheme: SubmodelScheme,
    widths: Mapping[str, int],
    num_slices: int | None,
    capacities: Sequence[float] | None,
) -> None:
    """Refuse sizes that no round could use.

    Args:
        scheme: that draws the slots.
        widths: number of neurons of each hidden width.
        num_slices: of a disjoint scheme; as many as clients if None.
        capacities: shares of the neurons that clients can hold.

    Raises:
        PartitionError: with one sentence that names the setting.
    """
    if num_slices is not None:
        for width in widths.values():
            slice_sizes(width, num_slices)
    if capacities is None:
        if not scheme.disjoint:
            raise PartitionError(
                f"{scheme.name!r} needs the share of the neurons that each client can hold: give "
                "capacities, e.g. 0.5 for half of them at each client."
            )
        return
    if num_slices is not None:
        raise PartitionError("Give num_slices or capacities, but not both.")
    if not capacities or not all(0 < capacity <= 1 for capacity in capacities):
        raise PartitionError(
            f"capacities is {list(capacities)}, but must be shares of the neurons above 0 and at "
            "most 1."
        )


def disjoint_shares(capacities: Sequence[float]) -> list[float]:
    """Return the shares of a partition in which slot k has capacity k.

    What the clients cannot hold together goes to one more slot, which nobody trains in this round.
    Capacities that sum to more than 1 are relative sizes: no neuron is given away twice.
    """
    rest = 1.0 - math.fsum(capacities)
    return [*capacities, rest] if rest > 1e-9 else list(capacities)


def _kept(width: int, share: float) -> int:
    """Return ``ceil(share * width)``, exact for a decimal share: 0.07 of 100 neurons are 7."""
    return math.ceil(Fraction(str(float(share))) * width)
