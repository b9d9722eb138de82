import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_ist.tokens.class_names import class_difference


def difference(theirs, ours):
    return class_difference(theirs, ours, "A", "B")


@pytest.mark.parametrize(
    ("theirs", "ours", "text"),
    [
        (["a", "b"], ("a", "b"), ""),
        (
            ["a", "b"],
            ["b", "a"],
            "the names are the same in another order: label 0 is 'a' for A and 'b' for B",
        ),
        (
            ["a", "b", "d", "c"],
            ["a", "b", "c", "d"],
            "the names are the same in another order: label 2 is 'd' for A and 'c' for B",
        ),
        (["a", "b", "c"], ["d", "b"], "only A has ['a', 'c']; only B has ['d']"),
        (["a"], ["a", "b"], "only B has ['b']"),
        (["a", "a"], ["a"], "A has 2 names and B 1: one is twice"),
        ([], ["a"], "only B has ['a']"),
    ],
)
def test_differences_by_hand(theirs, ours, text):
    assert difference(theirs, ours) == text


def test_what_both_have_is_not_shown():
    names = [f"scene number {k}" for k in range(45)]
    assert (
        difference([*names, "one"], [*names, "other"]) == "only A has ['one']; only B has ['other']"
    )


@settings(deadline=None)
@given(theirs=st.lists(st.text(max_size=90), max_size=20), copies=st.sampled_from([1, 100]))
def test_hostile_names_stay_on_one_short_printable_line(theirs, copies):
    text = difference(copies * [copies * name for name in theirs], ["a"])
    assert text.isprintable()
    assert len(text) < 7000


def test_what_is_cut_is_told():
    text = difference(["x" * 61] + [f"{k:04}" for k in range(1000)], ["a"])
    assert f"['{'x' * 60}'..., '0000', " in text
    # 3,000 characters less 67 for the first name hold 366 names of 8; 634 more there are.
    assert text.count(", and 634 more]") == 1
