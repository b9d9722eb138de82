"""Partitions: disjoint, complete, even, and the same everywhere."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.submodels.partition import PartitionError, partition, slice_sizes

KNOWN = [[0, 5, 6], [1, 4, 7], [2, 3]]


@given(
    seed=st.integers(0, 2**64),
    server_round=st.integers(0, 10**6),
    widths=st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 60), min_size=1),
    data=st.data(),
)
def test_disjoint_and_complete(seed, server_round, widths, data):
    num_slices = data.draw(st.integers(1, min(widths.values())))
    slices = partition(seed, server_round, widths, num_slices)
    assert len(slices) == num_slices
    for name, width in widths.items():
        parts = [s[name] for s in slices]
        assert sorted(np.concatenate(parts).tolist()) == list(range(width))
        assert all((np.diff(part) > 0).all() for part in parts)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_known_partition():
    """Fixed for good: a run that is resumed with another numpy must find its neurons again."""
    slices = partition(0, 1, {"h1": 8}, 3)
    assert [s["h1"].tolist() for s in slices] == KNOWN


def test_same_arguments_same_partition_in_another_process():
    code = (
        "from flower_ist.submodels.partition import partition;"
        "print([s['h1'].tolist() for s in partition(0, 1, {'h1': 8}, 3)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(KNOWN)


def test_another_seed_round_or_width_gives_another_partition():
    base = partition(0, 1, {"h1": 100, "h2": 100}, 2)
    others = [partition(1, 1, {"h1": 100}, 2), partition(0, 2, {"h1": 100}, 2)]
    for other in others:
        assert not np.array_equal(base[0]["h1"], other[0]["h1"])
    assert not np.array_equal(base[0]["h1"], base[0]["h2"])


@pytest.mark.parametrize(
    ("width", "num_slices", "shares", "sizes"),
    [
        (1024, 4, None, [256] * 4),
        (10, 3, None, [4, 3, 3]),
        (5, 5, None, [1] * 5),
        (1, 1, None, [1]),
        # One neuron each, then 8 * (.5, .25, .25) = 4, 2, 2.
        (11, 3, [0.5, 0.25, 0.25], [5, 3, 3]),
        (10, 2, [1e308, 1e308], [5, 5]),
        # One each, then 2 * (.998, .001, .001) = 1.996, .002, .002: the rest goes to the first.
        (5, 3, [998, 1, 1], [3, 1, 1]),
    ],
)
def test_sizes(width, num_slices, shares, sizes):
    assert slice_sizes(width, num_slices, shares) == sizes


@given(
    shares=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12),
    extra=st.integers(0, 50),
)
def test_sizes_with_any_shares(shares, extra):
    sizes = slice_sizes(len(shares) + extra, len(shares), shares)
    assert sum(sizes) == len(shares) + extra
    assert min(sizes) >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, {"h": 3}, 4), "3 neurons cannot be divided into 4 slices"),
        ((0, 1, {"h": 3}, 0), "at least 1, not 0"),
        ((-1, 1, {"h": 3}, 2), "must not be negative"),
        ((0, 1, {"h": 3}, 2, [1.0]), "2 positive numbers"),
        ((0, 1, {"h": 3}, 2, [1.0, 0.0]), "2 positive numbers"),
        ((0, 1, {"h": 3}, 2, [1.0, float("nan")]), "2 positive numbers"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(PartitionError, match=message):
        partition(*arguments)
