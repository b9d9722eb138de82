"""Median and trimmed mean of a weight's holders: numbers by hand, and what a liar can do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.submodels import holders
from flower_ist.submodels.axes import Axes, mlp_axes
from flower_ist.submodels.cut import Cut, Returned
from flower_ist.submodels.merging import merge
from flower_ist.submodels.robust import middle, trim_for
from tests.fakes.tiny_model import tiny_model

MEDIAN = trim_for("median")
RULES = [MEDIAN, trim_for("trimmed-mean:0.25"), trim_for("trimmed-mean:0")]
NAN = np.nan


def returned(weights, axes, neurons, *, weight=1.0, scaled=True, **changes) -> Returned:
    cut = Cut(axes, {"h1": np.array(neurons, np.intp)}, scaled)
    tensors = cut.take(weights)
    for name, values in changes.items():
        key = name.replace("_", ".")
        tensors[key] = np.array(values, np.float32).reshape(tensors[key].shape)
    return Returned(cut, tensors, weight)


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        ("median", [7], 7),
        ("median", [1, 9], 5),
        ("median", [1, 100, 3], 3),
        ("median", [4, -100, 1, 3], 2),
        # floor(0.25 * 4) = 1 at each end of 0 2 4 100, and of 0 2 4 5 100.
        ("trimmed-mean:0.25", [100, 0, 4, 2], 3),
        ("trimmed-mean:0.25", [100, 0, 4, 2, 5], 11 / 3),
        # floor(0.25 * 3) = 0: the plain mean.
        ("trimmed-mean:0.25", [0, 3, 9], 4),
        ("trimmed-mean:0.4", [0, 3, 9, 10, 99], 9),
    ],
)
def test_rules_by_hand(rule, values, expected):
    trim = trim_for(rule)
    assert trim is not None
    found, holders = middle(np.array(values, np.float32)[:, None], trim)
    assert found[0] == pytest.approx(expected, rel=1e-15)
    assert holders[0] == len(values)


def test_an_entrys_own_holders_count():
    """Three, two, one and no holder of four."""
    stack = np.array(
        [[1, 2, NAN, NAN], [NAN, 4, NAN, NAN], [9, NAN, NAN, NAN], [3, NAN, 8, NAN]], np.float64
    )
    assert MEDIAN is not None
    found, holders = middle(stack, MEDIAN)
    np.testing.assert_array_equal(found, [3, 3, 8, NAN])
    assert holders.tolist() == [3, 2, 1, 0]


def test_the_share_is_cut_exactly():
    """0.29 * 100 is 28.999999999999996 in floating point."""
    trim = trim_for("trimmed-mean:0.29")
    assert trim is not None
    assert [trim(number) for number in (1, 3, 4, 100)] == [0, 0, 1, 29]


def test_rules_of_no_use_are_refused():
    with pytest.raises(ValueError, match="merge_rule is 'mode', but must be mean, median, or tr"):
        trim_for("mode")
    for share in (0.5, -0.1, NAN, "", "a"):
        with pytest.raises(ValueError, match=r"must be at least 0 and below 0\.5"):
            trim_for(f"trimmed-mean:{share}")
    assert trim_for("mean") is None


def test_three_clients_on_one_slice_one_of_which_lies():
    """The liar's 10^6 examples do not count; the neurons of nobody keep their values."""
    weights, axes = tiny_model()
    replies = [
        returned(weights, axes, [0], fc1_bias=[12], fc2_weight=[24], fc2_bias=[101]),
        returned(weights, axes, [0], fc1_bias=[14], fc2_weight=[28], fc2_bias=[103]),
        returned(
            weights, axes, [0], weight=1e6, fc1_bias=[-9999], fc2_weight=[9999], fc2_bias=[9999]
        ),
    ]
    assert merge(weights, replies, MEDIAN) == 4 / 13
    assert weights["fc1.bias"].tolist() == [12, 20, 30, 40]
    # It travels times 4: 28 is the middle of 24, 28 and 9999, and 7 on the model's scale.
    assert weights["fc2.weight"].tolist() == [[7, 6, 7, 8]]
    assert weights["fc2.bias"].tolist() == [103]


def test_overlapping_slices_by_hand():
    """Neuron 1 has three holders, 0 and 2 have two, 3 has one. Nothing is scaled."""
    weights, axes = tiny_model()
    replies = [
        returned(weights, axes, [0, 1], scaled=False, fc1_bias=[11, 21], fc2_bias=[101]),
        returned(weights, axes, [0, 1, 2], scaled=False, fc1_bias=[15, 500, 33], fc2_bias=[105]),
        returned(weights, axes, [1, 2, 3], scaled=False, fc1_bias=[23, 35, 44], fc2_bias=[-900]),
    ]
    assert merge(weights, replies, MEDIAN) == 1.0
    assert weights["fc1.bias"].tolist() == [13, 23, 34, 44]
    assert weights["fc2.bias"].tolist() == [101]
    assert weights["fc2.weight"].tolist() == [[5, 6, 7, 8]]


def test_overlapping_slices_on_scales_of_their_own():
    """Neuron 1's outgoing weight 6 travels as 8, 12 and 24; 12, 18 and 9999 are 9, 9 and 2500."""
    weights, axes = tiny_model()
    replies = [
        returned(weights, axes, [0, 1, 2], fc2_weight=[20 / 3, 12, 28 / 3]),
        returned(weights, axes, [1, 3], fc2_weight=[18, 16]),
        returned(weights, axes, [1], fc2_weight=[9999]),
    ]
    merge(weights, replies, MEDIAN)
    np.testing.assert_allclose(weights["fc2.weight"], [[5, 9, 7, 8]], rtol=1e-6)


def test_disjoint_slices_are_taken_as_they_are():
    """One owner: no rule can tell, and the values are those of the mean, bit for bit."""
    found = []
    for trim in (None, *RULES):
        weights, axes = tiny_model()
        replies = [
            returned(weights, axes, [0, 3], fc1_bias=[0.1, 7e4], fc2_weight=[0.3, -0.7]),
            returned(weights, axes, [1, 2], fc1_bias=[1e-30, 3], fc2_weight=[11, 12]),
        ]
        merge(weights, replies, trim)
        found.append([weights[n].tobytes() for n in ("fc1.weight", "fc1.bias", "fc2.weight")])
    assert found[1:] == [found[0]] * len(RULES)


@st.composite
def federations(draw):
    """Any MLP of random weights, -0.0 among them, and slices that are equal or overlap."""
    dims = draw(st.lists(st.integers(1, 6), min_size=3, max_size=4))
    weights = initial_weights(dims, draw(st.integers(0, 99)))
    next(iter(weights.values())).reshape(-1)[0] = -0.0
    axes = mlp_axes(mlp_shapes(dims))
    subsets = {n: st.sets(st.integers(0, w - 1), min_size=1) for n, w in axes.widths.items()}
    count = draw(st.integers(1, 4))
    parts = [{n: np.array(sorted(draw(s)), np.intp) for n, s in subsets.items()} for _ in range(3)]
    return weights, axes, [parts[draw(st.integers(0, 2))] for _ in range(count)]


@pytest.mark.parametrize("trim", RULES)
@given(federation=federations(), scaled=st.booleans())
def test_merge_of_take_is_the_model_bit_for_bit(trim, federation, scaled):
    weights, axes, parts = federation
    merged = {name: w.copy() for name, w in weights.items()}
    cuts = [Cut(axes, part, scaled) for part in parts]
    replies = [Returned(cut, cut.take(weights), 1.0) for cut in cuts]
    merge(merged, replies, trim)
    for name in weights:
        assert merged[name].tobytes() == weights[name].tobytes()


@given(federation=federations(), seed=st.integers(0, 99))
def test_a_minority_cannot_move_a_weight_out_of_the_honest_range(federation, seed):
    """Of a weight's n holders fewer than half send anything; the honest ones add -1 to 1."""
    weights, axes, parts = federation
    parts = [part for part in parts for _ in range(3)]
    random = np.random.default_rng(seed)
    replies = []
    for number, part in enumerate(parts):
        lie, cut = number % 3 == 0, Cut(axes, part, scaled=False)
        tensors = {
            name: (tensor + (1e6 if lie else random.uniform(-1, 1, tensor.shape))).astype("f4")
            for name, tensor in cut.take(weights).items()
        }
        replies.append(Returned(cut, tensors, 1.0))
    merged = {name: w.copy() for name, w in weights.items()}
    merge(merged, replies, MEDIAN)
    for name in weights:
        assert np.abs(merged[name] - weights[name]).max() <= 1 + 1e-5


def test_rows_are_stacked_in_blocks(monkeypatch):
    """However few rows at a time, the result is the same."""
    found = []
    for block in (1, 7, 1 << 22):
        monkeypatch.setattr(holders, "_BLOCK_VALUES", block)
        weights = initial_weights([3, 8, 6, 2], seed=0)
        axes = mlp_axes(mlp_shapes([3, 8, 6, 2]))
        random = np.random.default_rng(0)
        replies = []
        for size in (3, 5, 8):
            cut = Cut(axes, {"h1": np.arange(8 - size, 8), "h2": np.arange(min(size, 6))})
            tensors = {
                name: (tensor + random.normal(size=tensor.shape)).astype("f4")
                for name, tensor in cut.take(weights).items()
            }
            replies.append(Returned(cut, tensors, 1.0))
        merge(weights, replies, MEDIAN)
        found.append({name: w.tobytes() for name, w in weights.items()})
    assert found[0] == found[1] == found[2]


def test_counters_stay_whole_numbers():
    axes = Axes.declare({"w": (2, 1), "seen": ()}, {"w": ("h", None)})
    weights = {"w": np.zeros((2, 1), np.float32), "seen": np.array(7, np.int64)}
    cut = Cut(axes, {"h": np.arange(2)})
    replies = [
        Returned(cut, {"w": np.zeros((2, 1), np.float32), "seen": np.array(n, np.int64)}, 1.0)
        for n in (8, 11)
    ]
    merge(weights, replies, MEDIAN)
    assert weights["seen"] == 10  # 9.5 rounds to even
    assert weights["seen"].dtype == np.int64
