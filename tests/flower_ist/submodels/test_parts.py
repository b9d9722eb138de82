"""Axes of several parts: gates, fused projections and concatenations, by hand and as properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_ist.submodels.axes import Axes
from flower_ist.submodels.cut import Cut, Returned
from flower_ist.submodels.merging import merge
from flower_ist.submodels.partition import partition
from flower_ist.submodels.parts import AxesError, Part
from flower_ist.submodels.robust import trim_for
from tests.fakes.axes import labels_of, summed_of


def test_the_gates_of_an_lstm_by_hand():
    """Two of three neurons: rows 0 and 2 of each of four gates, columns 0 and 2, times 3 / 2."""
    axes = Axes.declare({"hh": (12, 3)}, {"hh": (("h",) * 4, "h")})
    assert axes.widths == {"h": 3}
    assert labels_of(axes) == {"hh": (("h", "h", "h", "h"), "h")}
    assert summed_of(axes) == {"hh": (1,)}
    cut = Cut(axes, {"h": np.array([0, 2])})
    assert cut.shapes() == {"hh": (8, 2)}
    whole = np.arange(36, dtype=np.float32).reshape(12, 3)
    rows = [0, 2, 3, 5, 6, 8, 9, 11]
    assert cut.take({"hh": whole})["hh"].tolist() == (whole[rows][:, [0, 2]] * 1.5).tolist()


def test_a_fused_projection_is_cut_by_whole_heads():
    """Two heads of two: head 1 owns rows 2 and 3 of q, k and v each."""
    axes = Axes.declare(
        {"qkv": (12,), "proj": (4, 4)}, {"qkv": (("n",) * 3,), "proj": (None, "n")}, widths={"n": 2}
    )
    cut = Cut(axes, {"n": np.array([1])}, scaled=False)
    small = cut.take({"qkv": np.arange(12), "proj": np.arange(16).reshape(4, 4)})
    assert small["qkv"].tolist() == [2, 3, 6, 7, 10, 11]
    assert small["proj"].tolist() == [[2, 3], [6, 7], [10, 11], [14, 15]]


def test_a_concatenation_has_a_factor_for_each_branch():
    """Columns: one of two of a (times 2), two that all have, two of three of b (times 1.5)."""
    axes = Axes.declare(
        {"w": (1, 7), "a": (2,), "b": (3,)},
        {"w": (None, (("a", 1), (None, 2), ("b", 1))), "a": ("a",), "b": ("b",)},
    )
    cut = Cut(axes, {"a": np.array([1]), "b": np.array([0, 1])})
    small = cut.take({"w": np.ones((1, 7)), "a": np.ones(2), "b": np.ones(3)})
    assert small["w"].tolist() == [[2, 1, 1, 1.5, 1.5]]
    assert cut.lr_scales() == {"w": 1.4}


def test_a_factor_may_be_shared_by_the_two_sides_of_a_neuron():
    """(4 / 1) ** (1 / 2) on either side."""
    parts = {"in": ((Part("h", 1, power=0.5),),), "out": ((Part("h", 1, True, 0.5),),)}
    axes = Axes({"in": (4,), "out": (4,)}, parts, {"h": 4})
    cut = Cut(axes, {"h": np.array([2])})
    assert cut.take({"in": np.arange(4.0), "out": np.arange(4.0)}) == {"in": [4.0], "out": [4.0]}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (("h", "h", "h"), "does not have 3 parts of one length"),
        ((("h", 1), (None, 3)), "have 7 entries, but the axis has 10"),
        ((("h", 1), (None, 0)), "has 0 entries, but needs at least 1"),
        (("h", "h"), "An axis of 5 in 'w' is not a multiple of width 'h'"),
        ((("x", 1), (None, 6)), "Nothing says how many neurons x have"),
    ],
)
def test_parts_that_do_not_fit(label, message):
    with pytest.raises(AxesError, match=message):
        Axes.declare({"b": (4,), "w": (10,)}, {"b": ("h",), "w": (label,)})


@st.composite
def models(draw):
    """Up to three tensors whose axes are runs of parts of three widths, and slices of them."""
    widths = {name: draw(st.integers(2, 5)) for name in "abc"}
    part = st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(1, 2))
    shapes, parts = {name: (widths[name],) for name in "abc"}, {}
    for name in "abc":
        parts[name] = ((Part(name, 1),),)
    for name in ("x", "y", "z")[: draw(st.integers(1, 3))]:
        axes = draw(st.lists(st.lists(part, min_size=1, max_size=3), min_size=1, max_size=3))
        powers = [draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in axes]
        parts[name] = tuple(
            tuple(Part(w, b, p > 0, p) for w, b in axis)
            for axis, p in zip(axes, powers, strict=True)
        )
        shapes[name] = tuple(sum(p.length(widths) for p in axis) for axis in parts[name])
    values = hnp.from_dtype(np.dtype(np.float32), min_value=-(2.0**60), max_value=2.0**60)
    weights = {n: draw(hnp.arrays(np.float32, s, elements=values)) for n, s in shapes.items()}
    return weights, Axes(shapes, parts, widths)


def owner(axes, name, axis, entry):
    """The width and neuron that own an entry of an axis, counted one by one."""
    for part in axes.parts[name][axis]:
        length = part.length(axes.widths)
        if entry < length:
            return part.width, entry // part.block
        entry -= length
    raise AssertionError


@settings(deadline=None)
@given(models(), st.integers(0, 50))
def test_slices_hold_what_their_neurons_own(model, seed):
    weights, axes = model
    numbered = {n: np.arange(w.size, dtype=np.float64).reshape(w.shape) for n, w in weights.items()}
    slices = partition(seed, 1, axes.widths, 2)
    for part in slices:
        cut = Cut(axes, part, scaled=False)
        for name, small in cut.take(numbered).items():
            assert small.shape == cut.shapes()[name]
            held = [
                place
                for place in np.ndindex(numbered[name].shape)
                if all(
                    width is None or neuron in part[width]
                    for width, neuron in (owner(axes, name, *at) for at in enumerate(place))
                )
            ]
            assert small.reshape(-1).tolist() == [numbered[name][place] for place in held]
    # Along an axis slices share nothing but what every slice has, and cover it.
    for name, tensor in numbered.items():
        for axis, length in enumerate(tensor.shape):
            found = [dict(Cut(axes, s)._rows(name)).get(axis, np.arange(length)) for s in slices]
            shared = [e for e in range(length) if owner(axes, name, axis, e)[0] is None]
            assert np.intersect1d(*found).tolist() == shared
            assert np.union1d(*found).tolist() == list(range(length))


@settings(deadline=None)
@given(models(), st.integers(0, 50), st.booleans(), st.sampled_from(["mean", "median"]))
def test_merge_of_take_is_the_model_bit_for_bit(model, seed, scaled, rule):
    weights, axes = model
    merged = {name: w.copy() for name, w in weights.items()}
    cuts = [Cut(axes, part, scaled) for part in partition(seed, 1, axes.widths, 2)]
    replies = [Returned(cut, cut.take(weights), 1.0 + k) for k, cut in enumerate(cuts)]
    coverage = merge(merged, replies, trim_for(rule))
    assert 0 < coverage <= 1
    for name in weights:
        assert merged[name].tobytes() == weights[name].tobytes()


@settings(deadline=None)
@given(models(), st.integers(0, 50))
def test_an_entry_becomes_the_mean_of_its_holders(model, seed):
    """Both slices come back 1 higher on the model's scale; what nobody holds stays."""
    weights, axes = model
    weights = {name: np.rint(np.clip(w, -100, 100)) for name, w in weights.items()}
    merged = {name: w.copy() for name, w in weights.items()}
    cuts = [Cut(axes, part) for part in partition(seed, 1, axes.widths, 2)]
    replies = [
        Returned(
            cut,
            {n: t + np.asarray(cut.factor(n), np.float32) for n, t in cut.take(weights).items()},
            1.0,
        )
        for cut in cuts
    ]
    coverage = merge(merged, replies)
    held = 0
    for name, tensor in weights.items():
        expected = tensor.copy()
        for cut in cuts:
            expected[cut.entries(name)] = tensor[cut.entries(name)] + 1
        held += int((expected != tensor).sum())
        np.testing.assert_allclose(merged[name], expected, rtol=1e-5, atol=1e-4)
    assert coverage == held / sum(math.prod(s) for s in axes.shapes.values())
