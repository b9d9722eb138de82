"""Take and merge: numbers by hand, and properties of any net and any partition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.errors import ArgumentError
from flower_ist.submodels.axes import Axes, mlp_axes
from flower_ist.submodels.cut import Cut, Returned
from flower_ist.submodels.merging import merge
from flower_ist.submodels.partition import partition
from tests.fakes.tiny_model import tiny_model


def cut_of(axes, *neurons, scaled=True):
    return Cut(axes, {"h1": np.array(neurons, np.intp)}, scaled)


def test_take_by_hand():
    weights, axes = tiny_model()
    small = cut_of(axes, 1, 3).take(weights)
    assert small["fc1.weight"].tolist() == [[2], [4]]
    assert small["fc1.bias"].tolist() == [20, 40]
    # Two of four neurons are summed: their outgoing weights count 4 / 2 = 2 times.
    assert small["fc2.weight"].tolist() == [[12, 16]]
    assert small["fc2.bias"].tolist() == [100]


def test_merge_by_hand():
    weights, axes = tiny_model()
    one = cut_of(axes, 1, 3).take(weights)
    one["fc1.bias"] = np.array([21, 41], np.float32)
    one["fc2.weight"] = np.array([[14, 16]], np.float32)
    one["fc2.bias"] = np.array([110], np.float32)
    other = cut_of(axes, 0, 2).take(weights)
    other["fc2.bias"] = np.array([200], np.float32)
    coverage = merge(
        weights,
        [
            Returned(cut_of(axes, 1, 3), one, weight=3),
            Returned(cut_of(axes, 0, 2), other, weight=1),
        ],
    )
    assert coverage == 1.0
    assert weights["fc1.bias"].tolist() == [10, 21, 30, 41]
    # 14 came back where 12 = 2 x 6 was sent: 14 / 2 = 7.
    assert weights["fc2.weight"].tolist() == [[5, 7, 7, 8]]
    # The shared bias is averaged by examples: (3 x 110 + 1 x 200) / 4 = 132.5.
    assert weights["fc2.bias"].tolist() == [132.5]


def test_two_clients_on_one_slice_are_averaged_by_examples():
    weights, axes = tiny_model()
    replies = []
    for bias, examples in ((0.0, 1), (8.0, 3)):
        small = cut_of(axes, 0).take(weights)
        small["fc1.bias"] = np.array([bias], np.float32)
        replies.append(Returned(cut_of(axes, 0), small, examples))
    coverage = merge(weights, replies)
    assert weights["fc1.bias"].tolist() == [6.0, 20, 30, 40]
    # Of 13 weights one neuron's 3 and the shared bias were trained.
    assert coverage == 4 / 13


def test_nobody_returned_anything():
    weights, _ = tiny_model()
    before = {name: w.copy() for name, w in weights.items()}
    assert merge(weights, []) == 0.0
    for name in weights:
        assert np.array_equal(weights[name], before[name])


@st.composite
def nets(draw):
    """Any MLP with any float32 weights (0.0, -0.0 and denormals included) and a partition of it."""
    dims = draw(st.lists(st.integers(1, 7), min_size=3, max_size=5))
    shapes = mlp_shapes(dims)
    values = hnp.from_dtype(np.dtype(np.float32), min_value=-(2.0**100), max_value=2.0**100)
    weights = {n: draw(hnp.arrays(np.float32, s, elements=values)) for n, s in shapes.items()}
    axes = mlp_axes(shapes)
    num_slices = draw(st.integers(1, min(axes.widths.values())))
    seed = draw(st.integers(0, 100))
    return weights, axes, partition(seed, 1, axes.widths, num_slices)


@given(nets(), st.data())
def test_merge_of_take_is_the_model_bit_for_bit(net, data):
    weights, axes, slices = net
    merged = {name: w.copy() for name, w in weights.items()}
    order = data.draw(st.permutations(slices))
    copies = data.draw(st.integers(1, 3))
    examples = data.draw(st.lists(st.integers(1, 1000), min_size=copies, max_size=copies))
    cuts = [Cut(axes, part) for part in order]
    replies = [Returned(cut, cut.take(weights), n) for cut in cuts for n in examples]
    merge(merged, replies)
    for name in weights:
        assert merged[name].tobytes() == weights[name].tobytes()


@given(nets())
def test_what_nobody_trained_keeps_its_bits(net):
    weights, axes, slices = net
    merged = {name: w.copy() for name, w in weights.items()}
    first = Cut(axes, slices[0])
    trained = {name: w + np.float32(1) for name, w in first.take(weights).items()}
    merge(merged, [Returned(first, trained, 1.0)])
    kept = np.setdiff1d(np.arange(axes.widths["h1"]), first.indices["h1"])
    assert merged["fc1.weight"][kept].tobytes() == weights["fc1.weight"][kept].tobytes()


@pytest.mark.parametrize("num_slices", [2, 3, 4, 7])
def test_the_whole_net_computes_the_mean_of_its_slices(num_slices):
    """One linear layer after the cut: the mean over slices, weighted by their widths, is exact."""
    dims = [5, 21, 4]
    weights = initial_weights(dims, seed=3)
    axes = mlp_axes(mlp_shapes(dims))
    tokens = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)

    def logits(w):
        hidden = np.maximum(tokens @ w["fc1.weight"].T + w["fc1.bias"], 0)
        return hidden @ w["fc2.weight"].T + w["fc2.bias"]

    slices = partition(0, 1, axes.widths, num_slices)
    mean = sum(len(p["h1"]) / 21 * logits(Cut(axes, p).take(weights)) for p in slices)
    np.testing.assert_allclose(mean, logits(weights), rtol=1e-5, atol=1e-6)


def test_scale_of_each_tensor_with_uneven_widths():
    axes = mlp_axes(mlp_shapes([5, 12, 10, 4]))
    cut = Cut(axes, {"h1": np.arange(3), "h2": np.arange(5)})
    found = {name: cut.factor(name) for name in axes.shapes}
    assert found == {
        "fc1.weight": 1.0,
        "fc1.bias": 1.0,
        "fc2.weight": 4.0,  # 12 / 3
        "fc2.bias": 1.0,
        "fc3.weight": 2.0,  # 10 / 5
        "fc3.bias": 1.0,
    }


def test_whole_numbers_cannot_be_scaled():
    axes = Axes.declare({"w": (1, 4)}, {"w": (None, "h")})
    with pytest.raises(ArgumentError, match="'w' is int8"):
        Cut(axes, {"h": np.arange(3)}).take({"w": np.ones((1, 4), np.int8)})


def test_blocks_counters_and_0d_tensors():
    """A convolution before a flattened linear layer, and a counter that is shared."""
    shapes = {"conv": (2, 1, 3), "fc": (1, 6), "seen": ()}
    axes = Axes.declare(shapes, {"conv": ("c", None, None), "fc": (None, "c")})
    weights = {
        "conv": np.arange(6, dtype=np.float16).reshape(2, 1, 3),
        "fc": np.arange(6, dtype=np.float16).reshape(1, 6),
        "seen": np.array(7, np.int64),
    }
    cut = Cut(axes, {"c": np.array([1])})
    small = cut.take(weights)
    assert small["conv"].tolist() == [[[3, 4, 5]]]
    assert small["fc"].tolist() == [[6, 8, 10]]  # columns 3 4 5, twice
    assert small["fc"].dtype == np.float16
    replies = [
        Returned(cut, {**small, "seen": np.array(count, np.int64)}, weight=1) for count in (8, 11)
    ]
    merge(weights, replies)
    assert weights["seen"] == 10  # 9.5 rounds to even
    assert weights["fc"].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_overlapping_slices_by_hand():
    """Neurons 0 1 2 at one client, 1 3 at another, nothing scaled; biases 10 20 30 40 before."""
    weights, axes = tiny_model()
    left, right = cut_of(axes, 0, 1, 2, scaled=False), cut_of(axes, 1, 3, scaled=False)
    one, other = left.take(weights), right.take(weights)
    assert other["fc2.weight"].tolist() == [[6, 8]]
    one["fc1.bias"] = np.array([11, 26, 30], np.float32)
    other["fc1.bias"] = np.array([22, 44], np.float32)
    other["fc2.bias"] = np.array([104], np.float32)
    coverage = merge(weights, [Returned(left, one, 1), Returned(right, other, 3)])
    assert coverage == 1.0
    # Neuron 1 has two holders: (1 x 26 + 3 x 22) / 4 = 23. The others have one each.
    assert weights["fc1.bias"].tolist() == [11, 23, 30, 44]
    assert weights["fc2.weight"].tolist() == [[5, 6, 7, 8]]
    # The shared bias: (1 x 100 + 3 x 104) / 4.
    assert weights["fc2.bias"].tolist() == [103]


def test_overlapping_slices_on_scales_of_their_own():
    """Neuron 1's outgoing weight 6 is sent times 4/3 = 8 and times 4/1 = 24.

    They come back as 12 and 36, which are 9 and 9 on the model's scale.
    """
    weights, axes = tiny_model()
    left, right = cut_of(axes, 0, 1, 2), cut_of(axes, 1)
    one, other = left.take(weights), right.take(weights)
    np.testing.assert_allclose(one["fc2.weight"], [[20 / 3, 8, 28 / 3]], rtol=1e-6)
    assert other["fc2.weight"].tolist() == [[24]]
    one["fc2.weight"][0, 1] = 12
    other["fc2.weight"][0, 0] = 36
    coverage = merge(weights, [Returned(left, one, 1), Returned(right, other, 1)])
    np.testing.assert_allclose(weights["fc2.weight"], [[5, 9, 7, 8]], rtol=1e-6)
    assert coverage == 10 / 13  # neuron 3 and its 3 weights rest


@st.composite
def overlaps(draw):
    """Any MLP and any slices of it, of any size, that may overlap."""
    weights, axes, _ = draw(nets())
    slices = [
        {
            name: np.array(sorted(draw(st.sets(st.integers(0, n - 1), min_size=1))), np.intp)
            for name, n in axes.widths.items()
        }
        for _ in range(draw(st.integers(1, 4)))
    ]
    return weights, axes, slices


@settings(deadline=None)
@given(overlaps(), st.booleans(), st.data())
def test_overlapping_slices_that_nobody_trained_give_the_model_back_bit_for_bit(net, scaled, data):
    weights, axes, slices = net
    merged = {name: w.copy() for name, w in weights.items()}
    cuts = [Cut(axes, part, scaled) for part in slices]
    replies = [Returned(cut, cut.take(weights), data.draw(st.integers(1, 1000))) for cut in cuts]
    merge(merged, replies)
    for name in weights:
        assert merged[name].tobytes() == weights[name].tobytes()


@settings(deadline=None)
@given(overlaps(), st.data())
def test_a_weight_is_the_mean_of_its_holders_and_keeps_its_bits_without_any(net, data):
    """Against a loop over single entries of fc1.bias and the weights behind it."""
    weights, axes, slices = net
    weights = {name: np.clip(w, -100, 100) for name, w in weights.items()}
    merged = {name: w.copy() for name, w in weights.items()}
    replies = []
    for part in slices:
        shift, examples = data.draw(st.integers(-5, 5)), data.draw(st.integers(1, 9))
        cut = Cut(axes, part)
        trained = {n: t + np.float32(shift) for n, t in cut.take(weights).items()}
        replies.append(Returned(cut, trained, examples))
    merge(merged, replies)
    for neuron in range(axes.widths["h1"]):
        values, counts = [], []
        for reply in replies:
            position = np.flatnonzero(reply.cut.indices["h1"] == neuron)
            if len(position):
                values.append(float(reply.tensors["fc1.bias"][position[0]]))
                counts.append(reply.weight)
        if values:
            assert merged["fc1.bias"][neuron] == pytest.approx(
                np.average(values, weights=counts), rel=1e-5, abs=1e-4
            )
        else:
            assert merged["fc1.bias"][neuron].tobytes() == weights["fc1.bias"][neuron].tobytes()
            column = weights["fc2.weight"][:, neuron]
            assert merged["fc2.weight"][:, neuron].tobytes() == column.tobytes()


def test_slices_with_the_same_neurons_in_a_row_are_not_taken_for_one():
    """(0 | 1 2) and (0 1 | 2) list the same numbers in the same order."""
    weights = initial_weights([1, 3, 3, 1], seed=0)
    axes = mlp_axes(mlp_shapes([1, 3, 3, 1]))
    parts = [
        {"h1": np.array([0]), "h2": np.array([1, 2])},
        {"h1": np.array([0, 1]), "h2": np.array([2])},
    ]
    before = {name: w.copy() for name, w in weights.items()}
    cuts = [Cut(axes, part) for part in parts]
    merge(weights, [Returned(cut, cut.take(weights), 1) for cut in cuts])
    for name in weights:
        assert weights[name].tobytes() == before[name].tobytes()


@settings(deadline=None)
@given(st.data())
def test_a_part_is_what_entries_name_in_any_tensor(data):
    """Up to four axes, each uncut, cut, or cut in blocks of two: against one index per axis."""
    widths = {"a": 3, "b": 4}
    labels = tuple(data.draw(st.lists(st.sampled_from([None, "a", "b"]), max_size=4)))
    blocks = [data.draw(st.integers(1, 2)) for _ in labels]
    lengths = [2 if n is None else widths[n] * b for n, b in zip(labels, blocks, strict=True)]
    shapes = {"w": tuple(lengths), "a": (3,), "b": (4,)}
    axes = Axes.declare(shapes, {"w": labels, "a": ("a",), "b": ("b",)})
    cut = Cut(axes, {"a": np.array([0, 2]), "b": np.array([1])})
    whole = np.arange(np.prod(lengths, dtype=int), dtype=np.float32).reshape(lengths)
    expected = whole
    for axis, (label, block) in enumerate(zip(labels, blocks, strict=True)):
        if label is not None:
            owned = [i for i in range(lengths[axis]) if i // block in cut.indices[label]]
            expected = expected.take(owned, axis=axis)
    part = cut.part("w", whole)
    assert np.array_equal(part, expected)
    assert np.array_equal(whole[cut.entries("w")], expected)
    assert part.flags.c_contiguous
    assert not np.shares_memory(part, whole)
    assert part.shape == cut.shapes()["w"]


def test_slices_of_the_same_neurons_on_two_scales_are_averaged_on_the_models_scale():
    """Neuron 1's outgoing weight 6 is sent times 4/1 = 24 and as it is.

    They come back as 36 and 11, which are 9 and 11 on the model's scale.
    """
    weights, axes = tiny_model()
    one, other = cut_of(axes, 1), cut_of(axes, 1, scaled=False)
    replies = [
        Returned(cut, {**cut.take(weights), "fc2.weight": np.array([[back]], np.float32)}, 1)
        for cut, back in ((one, 36), (other, 11))
    ]
    assert merge(weights, replies) == 4 / 13
    assert weights["fc2.weight"].tolist() == [[5, 10, 7, 8]]
