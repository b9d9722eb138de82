"""The schemes of sub-models: index sets derived by hand, and what must hold of any of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_ist.submodels.partition import PartitionError, partition
from flower_ist.submodels.schemes import SCHEMES, check_sizes, disjoint_shares, submodel_scheme

WIDTHS = {"h1": 8, "h2": 6}


def drawn(name, server_round, shares, seed=0, widths=WIDTHS):
    slots = SCHEMES[name].draw(seed, server_round, widths, shares)
    return [{width: rows.tolist() for width, rows in slot.items()} for slot in slots]


@settings(deadline=None)
@given(
    name=st.sampled_from(list(SCHEMES)),
    seed=st.integers(0, 2**40),
    server_round=st.integers(0, 10**6),
    widths=st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 40), min_size=1),
    data=st.data(),
)
def test_every_scheme_gives_each_slot_sorted_neurons_of_each_width(
    name, seed, server_round, widths, data
):
    scheme = SCHEMES[name]
    num_slots = data.draw(st.integers(1, min(widths.values())))
    shares = data.draw(st.lists(st.floats(0.01, 1), min_size=num_slots, max_size=num_slots))
    slots = scheme.draw(seed, server_round, widths, shares)
    again = scheme.draw(seed, server_round, widths, shares)
    assert len(slots) == num_slots
    for width, neurons in widths.items():
        parts = [slot[width] for slot in slots]
        for part, same in zip(parts, [slot[width] for slot in again], strict=True):
            assert 1 <= len(part) <= neurons
            assert (np.diff(part) > 0).all()
            assert 0 <= part[0]
            assert part[-1] < neurons
            assert np.array_equal(part, same)
        if scheme.disjoint:
            assert sorted(np.concatenate(parts)) == list(range(neurons))


def test_ist_is_the_partition_of_the_round():
    for shares in (None, [0.5, 0.25, 0.25]):
        expected = partition(3, 7, WIDTHS, 3, shares)
        found = SCHEMES["ist"].draw(3, 7, WIDTHS, shares or [1.0] * 3)
        for one, other in zip(found, expected, strict=True):
            assert all(np.array_equal(one[width], other[width]) for width in WIDTHS)


def test_the_fixed_ensemble_keeps_the_partition_of_round_1():
    first = drawn("ist", 1, [1, 1])
    assert all(drawn("ist-fixed", later, [1, 1]) == first for later in (1, 2, 50))
    assert drawn("ist-fixed", 1, [1, 1], seed=1) != first


def test_federated_dropout_draws_a_fixed_number_for_each_client():
    """Half of 8 and 6 neurons, a third of them rounded up: 3 and 2; independent draws."""
    slots = drawn("federated-dropout", 1, [0.5, 0.5, 1 / 3], seed=2)
    assert [[len(slot["h1"]), len(slot["h2"])] for slot in slots] == [[4, 3], [4, 3], [3, 2]]
    assert slots[0] != slots[1]
    assert set(slots[0]["h1"]) & set(slots[1]["h1"])  # they overlap
    assert drawn("federated-dropout", 2, [0.5, 0.5, 1 / 3], seed=2) != slots


def test_federated_dropout_keeps_every_neuron_equally_often():
    """10 of 40 neurons in each of 400 draws: 100 times each, standard deviation 8.7."""
    kept = np.zeros(40, int)
    for server_round in range(100):
        for slot in SCHEMES["federated-dropout"].draw(0, server_round, {"h": 40}, [0.25] * 4):
            kept[slot["h"]] += 1
    assert kept.sum() == 4000
    assert 60 < kept.min() <= kept.max() < 140


def test_heterofl_by_hand():
    """ceil(8 / 2), ceil(6 / 2); ceil(8 / 16), ceil(6 / 16); all. Nested, and the same for good."""
    expected = [
        {"h1": [0, 1, 2, 3], "h2": [0, 1, 2]},
        {"h1": [0], "h2": [0]},
        {"h1": list(range(8)), "h2": list(range(6))},
    ]
    assert drawn("heterofl", 1, [0.5, 1 / 16, 1]) == expected
    assert drawn("heterofl", 9, [0.5, 1 / 16, 1], seed=4) == expected


def test_a_decimal_capacity_is_exact():
    """0.07 x 100 is 7.000000000000001 in floating point: it must not keep an eighth neuron."""
    assert len(drawn("heterofl", 1, [0.07], widths={"h": 100})[0]["h"]) == 7


def test_fedrolex_by_hand():
    """Half of 6 neurons: in round 1 (j = 0) 0 1 2, then 1 2 3, ..., 4 5 0, 5 0 1, and again."""
    windows = [drawn("fedrolex", j + 1, [0.5], widths={"h": 6})[0]["h"] for j in range(7)]
    assert windows == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [0, 4, 5], [0, 1, 5], [0, 1, 2]]


def test_fedrolex_widths_roll_on_their_own_and_larger_clients_hold_the_windows_of_smaller_ones():
    """Round 8 is j = 7: 7 mod 8 = 7 in h1, 7 mod 6 = 1 in h2."""
    half, quarter = drawn("fedrolex", 8, [0.5, 0.25])
    assert half == {"h1": [0, 1, 2, 7], "h2": [1, 2, 3]}
    assert quarter == {"h1": [0, 7], "h2": [1, 2]}


def test_what_each_scheme_does_with_scale_and_means():
    scaled = {name for name, scheme in SCHEMES.items() if scheme.scaled}
    weighted = {name for name, scheme in SCHEMES.items() if scheme.weighted}
    assert SCHEMES.keys() - scaled == {"fedrolex"}
    assert SCHEMES.keys() - weighted == {"heterofl", "fedrolex"}


def test_what_clients_cannot_hold_together_goes_to_one_more_slot():
    assert disjoint_shares([0.5, 0.25, 0.125, 0.125]) == [0.5, 0.25, 0.125, 0.125]
    assert disjoint_shares([0.1] * 10) == [0.1] * 10
    assert disjoint_shares([0.5, 0.25]) == [0.5, 0.25, 0.25]
    assert disjoint_shares([0.9, 0.8]) == [0.9, 0.8]


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("ist", {"num_slices": 7}, "6 neurons cannot be divided into 7 slices"),
        ("ist", {"num_slices": 2, "capacities": [0.5]}, "but not both"),
        ("heterofl", {}, "'heterofl' needs the share of the neurons"),
        ("fedrolex", {"num_slices": 2}, "'fedrolex' needs the share of the neurons"),
        ("heterofl", {"capacities": []}, "above 0 and at most 1"),
        ("heterofl", {"capacities": [0.5, 0.0]}, "above 0 and at most 1"),
        ("heterofl", {"capacities": [1.5]}, "above 0 and at most 1"),
        ("ist", {"capacities": [float("nan")]}, "above 0 and at most 1"),
    ],
)
def test_sizes_that_no_round_could_use_are_refused(name, sizes, message):
    none = {"num_slices": None, "capacities": None}
    with pytest.raises(PartitionError, match=message):
        check_sizes(SCHEMES[name], WIDTHS, **{**none, **sizes})


def test_an_unknown_scheme_is_refused_by_name():
    with pytest.raises(PartitionError, match="no sub-model 'fjord': choose one of ist, ist-fixed"):
        submodel_scheme("fjord")
