"""Axes: derived for MLPs, declared for anything else, refused where they do not fit."""

import numpy as np
import pytest

from flower_ist.classifier.mlp import mlp_shapes
from flower_ist.submodels.axes import Axes, AxesError, mlp_axes
from flower_ist.submodels.cut import Cut
from tests.fakes.axes import labels_of, summed_of


def test_axes_of_an_mlp_with_two_hidden_layers():
    axes = mlp_axes(mlp_shapes([768, 1024, 512, 10]))
    assert labels_of(axes) == {
        "fc1.weight": ("h1", None),
        "fc1.bias": ("h1",),
        "fc2.weight": ("h2", "h1"),
        "fc2.bias": ("h2",),
        "fc3.weight": (None, "h2"),
        "fc3.bias": (None,),
    }
    assert axes.widths == {"h1": 1024, "h2": 512}


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_any_depth(depth):
    axes = mlp_axes(mlp_shapes([7, *[11] * depth, 3]))
    assert axes.widths == {f"h{layer}": 11 for layer in range(1, depth + 1)}


def test_with_every_second_layer_cut_no_weight_is_cut_on_both_sides():
    axes = mlp_axes(mlp_shapes([7, 12, 3, 12, 2]), cut=(1, 3))
    assert axes.widths == {"h1": 12, "h3": 12}
    assert labels_of(axes) == {
        "fc1.weight": ("h1", None),
        "fc1.bias": ("h1",),
        "fc2.weight": (None, "h1"),
        "fc2.bias": (None,),
        "fc3.weight": ("h3", None),
        "fc3.bias": ("h3",),
        "fc4.weight": (None, "h3"),
        "fc4.bias": (None,),
    }


def test_a_net_of_which_no_layer_is_cut_is_refused():
    with pytest.raises(AxesError, match="there is nothing to cut"):
        mlp_axes(mlp_shapes([7, 12, 2]), cut=())


def test_layers_without_bias():
    axes = mlp_axes({"a": (4, 7), "b": (3, 4)})
    assert labels_of(axes) == {"a": ("h1", None), "b": (None, "h1")}


def test_share_of_the_weights_at_four_slices():
    """d=768, H=1024, C=10: slice 256*768+256 + 256*256+256 + 10*256+10 = 265,226 of 1,847,306."""
    axes = mlp_axes(mlp_shapes([768, 1024, 1024, 10]))
    assert axes.share({"h1": 256, "h2": 256}) == pytest.approx(265_226 / 1_847_306)
    assert round(100 * axes.share({"h1": 256, "h2": 256}), 2) == 14.36


def test_flattened_convolution_owns_blocks_of_columns():
    shapes = {"conv.weight": (16, 3, 5, 5), "fc.weight": (120, 400), "out.weight": (10, 120)}
    labels = {
        "conv.weight": ("c", None, None, None),
        "fc.weight": ("h", "c"),
        "out.weight": (None, "h"),
    }
    axes = Axes.declare(shapes, labels)
    assert axes.widths == {"c": 16, "h": 120}
    assert axes.parts["fc.weight"][1][0].block == 25
    assert axes.slice_shapes({"c": 4, "h": 30}) == {
        "conv.weight": (4, 3, 5, 5),
        "fc.weight": (30, 100),
        "out.weight": (10, 30),
    }


def test_layouts_other_than_out_first():
    """An embedding is looked up, not summed; a transposed convolution is (in, out, k)."""
    shapes = {"embedding": (50, 8), "deconv": (8, 6, 3), "out": (2, 6)}
    labels = {"embedding": (None, "h"), "deconv": ("h", "g", None), "out": (None, "g")}
    axes = Axes.declare(shapes, labels, summed={"embedding": (), "deconv": (0,)})
    assert summed_of(axes) == {"embedding": (), "deconv": (0,), "out": (1,)}
    cut = Cut(axes, {"h": np.arange(2), "g": np.arange(3)})
    assert [cut.factor(name) for name in shapes] == [1.0, 4.0, 2.0]


@pytest.mark.parametrize("summed", [{"x": (0,)}, {"w": (1,)}, {"w": (2,)}])
def test_summed_axes_that_are_not_cut(summed):
    with pytest.raises(AxesError, match="are not cut axes"):
        Axes.declare({"w": (4, 2)}, {"w": ("h", None)}, summed)


@pytest.mark.parametrize(
    ("shapes", "labels", "message"),
    [
        ({"w": (4, 2)}, {"v": ("h", None)}, "no such tensor"),
        ({"w": (4, 2)}, {"w": ("h",)}, r"1 axes are declared for 'w', whose shape is \[4, 2\]"),
        ({"w": (4, 2)}, {}, "nothing to cut"),
        ({"w": (4, 2), "v": (3, 6)}, {"w": ("h", None), "v": (None, "h")}, "not a multiple"),
    ],
)
def test_declarations_that_do_not_fit(shapes, labels, message):
    with pytest.raises(AxesError, match=message):
        Axes.declare(shapes, labels)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"w": (10, 4)}, "1 linear layers and no hidden width"),
        ({"a": (4, 7), "b": (3, 5)}, "takes 5 inputs, but the layer before it has 4 outputs"),
        ({"a": (4, 7), "x": (9,), "b": (3, 4)}, "'x' of shape .9. is not part of a plain MLP"),
        ({"c": (4, 3, 5, 5), "a": (4, 7), "b": (3, 4)}, "Axes.declare"),
    ],
)
def test_models_that_are_no_mlp(shapes, message):
    with pytest.raises(AxesError, match=message):
        mlp_axes(shapes)


def test_attention_heads_are_neurons():
    """Two heads of three: rows 0 to 2 and 3 to 5; the mean of both slices is the whole."""
    dim, heads, size = 4, 2, 3
    shapes = dict.fromkeys(("q", "k", "v"), (heads * size, dim)) | {"o": (dim, heads * size)}
    labels: dict[str, tuple[str | None, ...]] = dict.fromkeys(("q", "k", "v"), ("heads", None))
    axes = Axes.declare(shapes, labels | {"o": (None, "heads")}, widths={"heads": heads})
    assert axes.widths == {"heads": 2}
    assert axes.slice_shapes({"heads": 1}) == dict.fromkeys("qkv", (3, 4)) | {"o": (4, 3)}

    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    tokens = generator.normal(size=(5, dim))

    def attend(w):
        q, k, v = ((tokens @ w[name].T).reshape(5, -1, size).swapaxes(0, 1) for name in "qkv")
        scores = np.exp(q @ k.swapaxes(1, 2))
        mixed = scores / scores.sum(axis=2, keepdims=True) @ v
        return mixed.swapaxes(0, 1).reshape(5, -1) @ w["o"].T

    slices = [Cut(axes, {"heads": np.array([head])}).take(weights) for head in range(heads)]
    np.testing.assert_allclose(np.mean([attend(s) for s in slices], axis=0), attend(weights))


@pytest.mark.parametrize("widths", [{"h": 0}, {"x": 2}])
def test_widths_that_are_not_declared_or_empty(widths):
    with pytest.raises(AxesError, match="but must be one of h and have at least 1"):
        Axes.declare({"w": (4, 2)}, {"w": ("h", None)}, widths=widths)


def test_a_width_that_does_not_divide_its_axes():
    with pytest.raises(AxesError, match="not a multiple of width 'h', which has 3 neurons"):
        Axes.declare({"w": (4, 2)}, {"w": ("h", None)}, widths={"h": 3})
