import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import PrepError
from data_prep.split import balanced_parts, first_of_each_class, hold_out, iid_split, permutation


def test_permutations_never_change():
    """Recorded once: the same seed must deal the same shards in every later release."""
    assert permutation(6, seed=0).tolist() == [4, 2, 5, 0, 1, 3]
    assert permutation(6, seed=0, stream=1).tolist() == [3, 1, 0, 4, 5, 2]


@given(count=st.integers(1, 60), data=st.data(), seed=st.integers(0, 2**64 - 1))
def test_an_iid_split_is_disjoint_and_even(count, data, seed):
    parts = iid_split(count, data.draw(st.integers(1, count)), seed)
    assert sorted(np.concatenate(parts)) == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("parts", [0, 4])
def test_an_impossible_number_of_parts_is_refused(parts):
    with pytest.raises(PrepError, match=f"3 images cannot be split into {parts} parts"):
        iid_split(3, parts, seed=0)


def test_the_first_of_each_class_in_their_order():
    chosen = first_of_each_class(np.array([1, 0, 1, 1, 0]), per_class=2, classes=2)
    assert [rows.tolist() for rows in chosen] == [[1, 4], [0, 2]]
    with pytest.raises(PrepError, match="Class 0 has 2 images, 3 are needed"):
        first_of_each_class(np.array([1, 0, 1, 1, 0]), per_class=3, classes=2)


def test_parts_hold_as_many_of_each_class_in_random_order():
    labels = np.repeat(np.arange(10), 8)
    parts = balanced_parts(first_of_each_class(labels, 8, 10), parts=4, seed=0)
    assert sorted(np.concatenate(parts)) == list(range(80))
    for rows in parts:
        assert np.bincount(labels[rows]).tolist() == [2] * 10
        assert (np.diff(rows) < 0).any()


def test_hold_out_is_disjoint_and_of_the_share_asked_for():
    train, test = hold_out(10, 0.25, seed=0)
    assert (len(train), len(test)) == (8, 2)
    assert sorted([*train, *test]) == list(range(10))
    for share in (0.0, 0.01, 1.0):
        with pytest.raises(PrepError, match="leaves a set empty"):
            hold_out(10, share, seed=0)
