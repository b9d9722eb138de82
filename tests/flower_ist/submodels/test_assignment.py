"""Which slices are the same in all rounds, and that they are those that are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from flower_ist.classifier.mlp import mlp_shapes
from flower_ist.submodels.assignment import Assignment
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut
from flower_ist.submodels.schemes import SCHEMES

AXES = mlp_axes(mlp_shapes([12, 9, 8, 3]))


def assignment(scheme: str = "ist-fixed", **options: Any) -> Assignment:
    return Assignment(AXES, SCHEMES[scheme], **options)


def sizes(cuts: Sequence[Cut]) -> list[dict[str, int]]:
    return [{width: len(rows) for width, rows in cut.indices.items()} for cut in cuts]


@pytest.mark.parametrize(
    ("options", "clients", "expected"),
    [
        # 9 and 8 neurons in three slices: 3 each, and 3, 3, 2.
        ({}, 3, [{"h1": 3, "h2": 3}, {"h1": 3, "h2": 3}, {"h1": 3, "h2": 2}]),
        ({"num_slices": 1}, 3, [{"h1": 9, "h2": 8}]),
        ({}, 0, []),
        ({"capacities": [0.5, 0.25]}, 2, []),
        ({"scheme": "ist"}, 3, []),
        ({"scheme": "heterofl", "capacities": [0.5]}, 3, []),
    ],
)
def test_only_an_ensemble_has_fixed_slices(options, clients, expected):
    found = sizes(assignment(**options).fixed_cuts(clients))
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_the_fixed_slices_are_those_that_are_drawn_in_every_round():
    drawn = SCHEMES["ist-fixed"].draw(5, 17, AXES.widths, [1.0] * 4)
    for one, other in zip(assignment(seed=5).fixed_cuts(4), drawn, strict=True):
        assert all(np.array_equal(one.indices[width], other[width]) for width in AXES.widths)


def test_clients_on_one_slice_have_the_same_cut():
    """Seven clients on three slices: 3, 2 and 2 of them, others in the next round."""
    plan = assignment("ist", num_slices=3)
    cuts = plan.cuts(1, range(7))
    assert sorted(cuts.count(cut) for cut in set(cuts)) == [2, 2, 3]
    slices = [[cut.indices["h1"].tolist() for cut in plan.cuts(r, range(7))] for r in (1, 2)]
    assert slices[0] != slices[1]


def test_a_seat_picks_a_capacity():
    """Seats 0, 1 and 2 of capacities 1 and 1/3: 9 and 8 neurons, 3 and 3 of them, 9 and 8."""
    cuts = assignment("heterofl", capacities=[1.0, 1 / 3]).cuts(4, [1, 2, 0])
    assert sizes(cuts) == [{"h1": 3, "h2": 3}, {"h1": 9, "h2": 8}, {"h1": 9, "h2": 8}]
