"""The MLP: by hand, to arrays and back, and shapes that are refused."""

import numpy as np
import pytest
import torch

from flower_ist.classifier.mlp import MLP, initial_weights, mlp_dims, mlp_shapes

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
    logits = MLP.from_arrays(BY_HAND)(torch.tensor([[1.0, 2.0], [-1.0, 2.0]]))
    assert logits.tolist() == [[5.5, 26.5], [4.5, 19.5]]


def test_no_relu_behind_the_last_layer():
    weights = {"fc1.weight": np.array([[-2.0]], np.float32), "fc1.bias": np.zeros(1, np.float32)}
    assert MLP.from_arrays(weights)(torch.tensor([[3.0]])).tolist() == [[-6.0]]


@pytest.mark.parametrize("dims", [[2, 3], [5, 1, 2], [4, 6, 6, 3], [2, 3, 4, 5, 6, 7]])
def test_arrays_come_back_bit_for_bit_in_order_of_depth(dims):
    weights = initial_weights(dims, seed=3)
    shuffled = dict(reversed(weights.items()))
    found = MLP.from_arrays(shuffled).to_arrays()
    assert list(found) == list(mlp_shapes(dims)) == list(weights)
    for name, array in weights.items():
        assert found[name].tobytes() == array.tobytes()
        assert found[name].dtype == np.float32
    assert mlp_dims({name: array.shape for name, array in shuffled.items()}) == dims


def test_a_model_has_weights_of_its_own_that_can_be_trained():
    weights = {name: array.copy() for name, array in BY_HAND.items()}
    for array in weights.values():
        array.flags.writeable = False
    model = MLP.from_arrays(weights)
    assert all(weight.requires_grad for weight in model.parameters())
    with torch.no_grad():
        model.get_parameter("fc1.bias").add_(1)
    assert model.to_arrays()["fc1.bias"].tolist() == [1.5, -1]
    assert weights["fc1.bias"].tolist() == [0.5, -2]


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
        MLP.from_arrays({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


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


def test_initial_weights_leave_the_global_generators_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initial_weights([4, 3, 2], seed=0)
    MLP.from_arrays(BY_HAND)
    assert torch.equal(torch.rand(3), expected)
