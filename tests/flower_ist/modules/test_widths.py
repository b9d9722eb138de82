"""Runs of widths: unified, divided and viewed, by hand and as properties."""

from hypothesis import given
from hypothesis import strategies as st

from flower_ist.modules.views import view
from flower_ist.modules.widths import (
    Width,
    Widths,
    fresh,
    is_uncut,
    length_of,
    resolve,
    uncut,
)


def counts(runs):
    """(neurons or None, entries that each owns) of an axis, as it is known by now."""
    return [(None if width is None else width.count, block) for width, block in resolve(runs)]


def test_two_widths_become_one():
    one, other = fresh(6), fresh(6)
    Widths().unify(one, other)
    assert resolve(one) == resolve(other)
    assert counts(one) == [(6, 1)]


def test_blocks_of_different_sizes_have_common_neurons():
    """6 neurons of 2 entries against 4 of 3: two neurons of 6."""
    one, other = [(Width(6), 2)], [(Width(4), 3)]
    Widths().unify(one, other)
    assert counts(one) == counts(other) == [(2, 6)]


def test_a_concatenation_splits_what_comes_behind_it():
    one, other, behind = fresh(3), fresh(5), fresh(8)
    Widths().unify(one + other, behind)
    assert counts(behind) == [(3, 1), (5, 1)]
    assert resolve(behind) == resolve(one) + resolve(other)


def test_what_meets_an_uncut_axis_is_whole_with_the_reason():
    widths, axis = Widths(), fresh(6)
    widths.at = "add"
    widths.unify(axis, uncut(6), "because")
    assert is_uncut(axis)
    assert axis[0][0].why == "because (add)"


def test_only_the_part_that_meets_an_uncut_axis_is_whole():
    axis = fresh(6)
    Widths().unify(axis, [*uncut(2), *fresh(4)])
    assert counts(axis) == [(None, 2), (4, 1)]


def test_pieces_of_one_length_are_cut_alike():
    first, second, third = Widths().divide_equally(fresh(12), 3)
    assert first == second == third
    assert counts(first) == [(4, 1)]


def test_a_flattened_convolution_owns_blocks():
    ((runs, old),) = view(Widths(), [fresh(8), uncut(5), uncut(5)], [200])
    assert (counts(runs), old) == ([(8, 25)], [0, 1, 2])


def test_heads_are_blocks_and_q_k_v_are_parts():
    axis = fresh(24)
    blocks = view(Widths(), [axis], [4, 6])
    assert [counts(runs) for runs, _ in blocks] == [[(4, 1)], [(None, 6)]]
    axis = fresh(24)
    parts = view(Widths(), [axis], [3, 4, 2], by_parts=True)
    assert [counts(runs) for runs, _ in parts] == [[(None, 3)], [(4, 1)], [(None, 2)]]
    assert counts(axis) == [(4, 2)] * 3
    assert len({width for width, _ in resolve(axis)}) == 1


def test_an_axis_that_begins_with_images_repeats_its_widths_and_finds_them_again():
    axis = fresh(6)
    ((merged, _),) = view(Widths(), [uncut(2), axis], [12])
    assert counts(merged) == [(6, 1), (6, 1)]
    (images, _), (again, _) = view(Widths(), [merged], [2, 6])
    assert (counts(images), resolve(again)) == ([(None, 2)], resolve(axis))


runs = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=5)


@given(st.lists(runs, min_size=2, max_size=4))
def test_after_unifying_axes_are_the_same_and_as_long_as_before(axes):
    """Three widths of 2 to 4 neurons and uncut entries, in any runs, filled up to one length."""
    known = [Width(2), Width(3), Width(4)]
    made = [
        [(known[which], block) if which < 3 else (None, block) for which, block in axis]
        for axis in axes
    ]
    longest = max(map(length_of, made))
    made = [[*axis, (None, longest - length_of(axis))] for axis in made]
    widths = Widths()
    for axis in made[1:]:
        widths.unify(made[0], axis)
    for axis in made[1:]:
        widths.unify(made[0], axis)  # what the first axes have learned since
    assert all(resolve(axis) == resolve(made[0]) for axis in made)
    assert all(length_of(resolve(axis)) == longest for axis in made)
