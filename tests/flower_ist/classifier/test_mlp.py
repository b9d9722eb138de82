"""The MLP: by hand, to a vector and back, and shapes that are refused."""

import numpy as np
import pytest

from flower_ist.classifier.mlp import (
    initial_weights,
    layers_of,
    logits,
    mlp_dims,
    mlp_shapes,
    views_of,
)

BY_HAND = {
    "fc1.weight": np.array([[1, 2], [-1, 1]], np.float32),
    "fc1.bias": np.array([0.5, -2], np.float32),
    "fc2.weight": np.array([[1, 1], [3, -1]], np.float32),
    "fc2.bias": np.array([0, 10], np.float32),
}


def test_forward_by_hand():
    """x = (1, 2): fc1 gives (5.5, -1), ReLU (5.5, 0), fc2 (5.5, 26.5).

    x = (-1, 2): fc1 gives (3.5, 1), ReLU keeps both, fc2 (4.5, 19.5).
    """
    found = logits(layers_of(BY_HAND), np.array([[1, 2], [-1, 2]], np.float32))
    assert found.tolist() == [[5.5, 26.5], [4.5, 19.5]]


def test_no_relu_behind_the_last_layer():
    weights = {"fc1.weight": np.array([[-2.0]], np.float32), "fc1.bias": np.zeros(1, np.float32)}
    assert logits(layers_of(weights), np.array([[3]], np.float32)).tolist() == [[-6.0]]


@pytest.mark.parametrize("dims", [[2, 3], [5, 1, 2], [4, 6, 6, 3], [2, 3, 4, 5, 6, 7]])
def test_layers_are_the_arrays_themselves_in_order_of_depth(dims):
    weights = initial_weights(dims, seed=3)
    shuffled = dict(reversed(weights.items()))
    found = [array for layer in layers_of(shuffled) for array in layer]
    assert all(one is other for one, other in zip(found, weights.values(), strict=True))
    assert list(weights) == list(mlp_shapes(dims))
    assert mlp_dims({name: array.shape for name, array in shuffled.items()}) == dims


@pytest.mark.parametrize("dims", [[2, 3], [4, 6, 6, 3]])
def test_a_vector_s_views_are_its_tensors_one_behind_the_other(dims):
    shapes = mlp_shapes(dims)
    vector = np.arange(sum(int(np.prod(shape)) for shape in shapes.values()), dtype=np.float32)
    views = views_of(vector, shapes)
    assert {name: view.shape for name, view in views.items()} == shapes
    assert np.concatenate([view.ravel() for view in views.values()]).tolist() == vector.tolist()
    for view in views.values():
        view += 1000
    assert vector.min() == 1000


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"fc1.weight": (3, 2)},
        {"fc1.weight": (3, 2), "fc1.bias": (2,)},
        {"fc1.weight": (3,), "fc1.bias": (3,)},
        {"fc1.weight": (), "fc1.bias": ()},
        {"fc1.weight": (3, 2, 1), "fc1.bias": (3,)},
        {"fc2.weight": (3, 2), "fc2.bias": (3,)},
        {"fc1.weight": (3, 2), "fc1.bias": (3,), "fc2.weight": (2, 4), "fc2.bias": (2,)},
        {"fc1.weight": (3, 2), "fc1.bias": (3,), "fc3.weight": (2, 3), "fc3.bias": (2,)},
        {"fc1.weight": (3, 2), "fc1.bias": (3,), "extra": (1,)},
    ],
)
def test_shapes_that_are_no_mlp_are_refused(shapes):
    with pytest.raises(ValueError, match="are not the layers fc1, fc2"):
        mlp_dims(shapes)
    with pytest.raises(ValueError, match="are not the layers"):
        layers_of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def test_initial_weights_are_seeded_and_bounded_by_the_fan_in():
    """+-1/sqrt(fan-in): 1/5 behind 25 inputs, 1/8 behind 64 neurons; both sides are used."""
    dims = [25, 64, 10]
    weights = initial_weights(dims, seed=0)
    for name, bound in {"fc1": 1 / 5, "fc2": 1 / 8}.items():
        for part in ("weight", "bias"):
            array = weights[f"{name}.{part}"]
            assert array.dtype == np.float32
            assert np.abs(array).max() <= bound * (1 + 1e-6)
            assert array.min() < -bound / 2 < bound / 2 < array.max()
    again, other = initial_weights(dims, seed=0), initial_weights(dims, seed=1)
    for name, array in weights.items():
        assert array.tobytes() == again[name].tobytes()
        assert array.tobytes() != other[name].tobytes()


def test_initial_weights_leave_the_global_generator_alone():
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    initial_weights([4, 3, 2], seed=0)
    assert np.array_equal(np.random.random(3), expected)  # noqa: NPY002
