"""Whoever takes the changes of a tracked dict now and then knows all that is in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.tracked import TrackedDict

WRITES = st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers()), max_size=8))


@given(WRITES)
def test_changes_since_the_last_time_are_enough(rounds):
    tracked: TrackedDict[int] = TrackedDict({"a": 0, "b": 0})
    copy = tracked.since(0)
    for entries in rounds:
        writes = tracked.writes
        for key, value in entries[:2]:
            tracked[key] = value
        tracked.update(entries[2:5])
        tracked |= dict(entries[5:])
        changes = tracked.since(writes)
        assert len(changes) <= len(entries)
        assert changes.keys() >= dict(entries).keys()
        copy |= changes
    assert copy == dict(tracked)


def test_nothing_can_be_removed():
    tracked = TrackedDict({"a": 1})
    with pytest.raises(TypeError, match="'a' cannot be removed"):
        tracked.pop("a")
    assert tracked == {"a": 1}
