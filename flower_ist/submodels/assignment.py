"""Which slice of the model each client of a round gets. Pure numpy, no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flower_ist.submodels.axes import Axes
from flower_ist.submodels.cut import Cut
from flower_ist.submodels.partition import permutation, slice_sizes, slice_turns
from flower_ist.submodels.schemes import Slots, SubmodelScheme, check_sizes, disjoint_shares


@dataclass(frozen=True)
class Assignment:
    """Draw the slots of a scheme and give one to each client.

    Attributes:
        axes: which axis of which tensor belongs to which hidden width.
        scheme: which neurons make up a slot.
        seed: of slots, and of who gets which.
        num_slices: K, how many slices the neurons are divided into; None: as many as clients.
        capacities: the share of each width's neurons that a client can hold, in place of
            ``num_slices``; they repeat if there are more clients.

    Raises:
        PartitionError: the scheme cannot use these sizes.
    """

    axes: Axes
    scheme: SubmodelScheme
    seed: int = 0
    num_slices: int | None = None
    capacities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be used."""
        check_sizes(self.scheme, self.axes.widths, self.num_slices, self.capacities)

    def cuts(
        self,
        server_round: int,
        seats: Sequence[int],
        capacities: Sequence[float] | None = None,
    ) -> list[Cut]:
        """Return the slice of each of a round's n clients, in the order of ``seats``.

        Args:
            server_round: at least 1.
            seats: n numbers, at least 0; a client's number picks its capacity.
            capacities: of these n clients in this round, in the place of the seats'.
        """
        if self.capacities is None:
            slots = self._draw(server_round, len(seats))
            if self.scheme.ensemble and len(seats) < len(slots):
                turns = slice_turns(self.seed, server_round, len(slots), len(seats))
                slots = [slots[k] for k in turns]
            # Whoever trained a slice in one round trains another in the next.
            order = permutation(self.seed, server_round, "clients", len(seats))
        else:
            shares = list(capacities or ())
            if capacities is None:
                shares = [self.capacities[seat % len(self.capacities)] for seat in seats]
            if self.scheme.disjoint:
                shares = disjoint_shares(shares)
            slots = self.scheme.draw(self.seed, server_round, self.axes.widths, shares)
            order = np.arange(len(seats))
        cuts = self._cuts(slots)
        return [cuts[turn % len(cuts)] for turn in np.argsort(order)]

    def fixed_cuts(self, num_clients: int) -> list[Cut]:
        """Return the slices that are the same in all rounds; none if the scheme is no ensemble.

        Args:
            num_clients: how many train in a round: without ``num_slices`` there are as many slices.
                With ``capacities`` the slices follow from who these clients are, so that none are
                fixed.
        """
        if not self.scheme.ensemble or self.capacities is not None or num_clients == 0:
            return []
        return self._cuts(self._draw(1, num_clients))

    def parts(self) -> list[float]:
        """Return the share of the model's weights that each slice holds; empty if K is not set."""
        if self.num_slices is None:
            return []
        sizes = {
            name: slice_sizes(width, self.num_slices) for name, width in self.axes.widths.items()
        }
        return [
            self.axes.share({name: of_width[k] for name, of_width in sizes.items()})
            for k in range(self.num_slices)
        ]

    def _draw(self, server_round: int, num_clients: int) -> Slots:
        num_slices = self.num_slices or min(num_clients, *self.axes.widths.values())
        return self.scheme.draw(self.seed, server_round, self.axes.widths, [1.0] * num_slices)

    def _cuts(self, slots: Slots) -> list[Cut]:
        return [Cut(self.axes, indices, self.scheme.scaled) for indices in slots]
