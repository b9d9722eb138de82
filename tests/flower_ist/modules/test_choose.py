"""The widths that are cut: no two neighbors, and no other such set saves more."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from flower_ist.modules.choose import choose


def test_every_second_layer_of_a_chain():
    savings = {"a": 3, "b": 5, "c": 3, "d": 1}
    neighbors = {"a": {"b"}, "b": {"a", "c"}, "c": {"b", "d"}, "d": {"c"}}
    assert choose(savings, neighbors) == ["a", "c"]


def test_a_width_on_both_sides_of_one_weight_is_never_chosen():
    assert choose({"a": 3, "b": 1}, {"a": {"a", "b"}, "b": {"a"}}) == ["b"]
    assert choose({"a": 3}, {"a": {"a"}}) == []


@st.composite
def graphs(draw):
    names = [f"w{k}" for k in range(draw(st.integers(0, 8)))]
    savings = {name: draw(st.integers(0, 9)) for name in names}
    neighbors = {name: set() for name in names}
    for one, other in [*combinations(names, 2), *((n, n) for n in names)]:
        if draw(st.integers(0, 2)) == 0:
            neighbors[one].add(other)
            neighbors[other].add(one)
    return savings, neighbors


@settings(deadline=None)
@given(graphs())
def test_against_all_sets(graph):
    savings, neighbors = graph

    def allowed(widths):
        return all(other not in neighbors[width] for width in widths for other in widths)

    sets = [s for n in range(len(savings) + 1) for s in combinations(savings, n) if allowed(s)]
    best = max(sum(savings[width] for width in s) for s in sets)
    chosen = choose(savings, neighbors)
    assert allowed(chosen)
    assert sum(savings[width] for width in chosen) == best
