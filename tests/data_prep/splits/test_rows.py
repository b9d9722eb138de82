import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import PrepError
from data_prep.splits.rows import (
    balanced_parts,
    first_of_each_class,
    hold_out,
    iid_split,
    permutation,
    stratified_hold_out,
)


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


def test_a_stratified_hold_out_by_hand():
    """.25 of 8, 5 and 3 rows are 2, 1.25 and .75: of round(4) the last goes to the third class."""
    labels = np.repeat([0, 1, 2], [8, 5, 3])
    train, test = stratified_hold_out(labels, 0.25, seed=0)
    assert np.bincount(labels[test]).tolist() == [2, 1, 1]
    assert sorted([*train, *test]) == list(range(16))
    assert not np.array_equal(test, stratified_hold_out(labels, 0.25, seed=1)[1])
    # Recorded once: the same seed must hold the same rows out in every later release.
    assert test.tolist() == [4, 7, 8, 14]


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    share=st.integers(1, 19).map(lambda twentieths: twentieths / 20),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_stratified_hold_out_is_within_one_row_a_class_and_leaves_each_class_to_train(
    labels, share, seed
):
    labels = np.array(labels)
    try:
        train, test = stratified_hold_out(labels, share, seed)
    except PrepError:
        assert round(len(labels) * share) == 0 or np.bincount(labels).max() == 1
        return
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert len(test) <= round(len(labels) * share)
    for label in np.unique(labels):
        count = (labels == label).sum()
        tests = (labels[test] == label).sum()
        assert tests < count
        assert abs(tests - count * share) <= 1


@pytest.mark.parametrize("share", [-0.5, 0, 0.01, 1, 1.5, float("nan")])
def test_a_stratified_hold_out_of_nothing_or_everything_is_refused(share):
    with pytest.raises(PrepError, match="leaves a set empty"):
        stratified_hold_out(np.arange(10) % 2, share, seed=0)
