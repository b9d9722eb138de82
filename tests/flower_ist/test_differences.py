from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flower_ist.differences import differences

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def test_only_what_differs_is_named():
    before = {"seed": 0, "rounds": 10, "mask": {"ratio": 0.5, "kind": "random"}, "old": True}
    now = {"seed": 0, "rounds": 20, "mask": {"ratio": 0.75, "kind": "random"}, "new": ""}
    assert differences(before, now) == (
        "rounds was 10 and is 20; mask.ratio was 0.5 and is 0.75; new was not given and is ''; old "
        "was True and is not given"
    )
    assert differences(before, now, leave_out=frozenset({"rounds", "mask", "new"})) == (
        "old was True and is not given"
    )


def test_of_lists_only_the_entries_of_one_side_are_named():
    names = [f"class-{k}" for k in range(21_841)]
    assert differences({"c": names}, {"c": [*names[1:], "cow"]}) == (
        "c is without 'class-0' and with 'cow'"
    )
    assert differences({"c": names}, {"c": names[:-5]}) == (
        "c is without 'class-21836', 'class-21837', 'class-21838' and 2 more"
    )
    swapped = [*names[:7], names[8], names[7], *names[9:]]
    assert differences({"c": names}, {"c": swapped}) == (
        "c has another order from place 7 on, which was class-7 and is class-8"
    )
    assert differences({"c": ["a"]}, {"c": ["a", "a"]}) == "c is with 'a'"


def test_of_long_texts_the_part_that_differs_is_shown():
    """Both begin and end alike: cut from the start, they would look the same."""
    one, other = "a" * 500 + "X" + "b" * 500, "a" * 500 + "Y" + "b" * 500
    told = differences({"text": one}, {"text": other})
    assert "aX" in told
    assert "aY" in told
    assert len(told) < 200


def test_many_differences_are_counted():
    assert differences({}, {f"k{n}": n for n in range(10)}).endswith(
        "k7 was not given and is 7; and 2 more"
    )


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.dictionaries(st.text(), VALUES))
def test_nothing_is_said_if_and_only_if_all_is_equal(one, other):
    assert bool(differences(one, other)) == (one != other)
    assert differences(one, one) == ""
