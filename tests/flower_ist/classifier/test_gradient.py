"""Loss, gradient and Adam in float64: by finite differences, and against torch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flower_ist.classifier import adam
from flower_ist.classifier.adam import Adam
from flower_ist.classifier.gradient import Workspace, loss_and_gradient
from flower_ist.classifier.mlp import initial_weights, layers_of, mlp_shapes, views_of
from tests.fakes.torch_mlp import torch_train

DIMS = [(5, 3), (5, 7, 3), (5, 7, 6, 3), (5, 4, 6, 4, 3), (1, 1, 1), (1, 2)]


class Net:
    """A net in float64, its gradient and its work arrays."""

    def __init__(self, dims: tuple[int, ...], size: int, seed: int = 0) -> None:
        self.shapes = mlp_shapes(dims)
        start = initial_weights(dims, seed).values()
        self.weights = np.concatenate([array.ravel() for array in start]).astype(np.float64)
        self.gradient = np.full_like(self.weights, np.nan)
        self.arrays = views_of(self.weights, self.shapes)
        self.layers = layers_of(self.arrays)
        self.gradients = layers_of(views_of(self.gradient, self.shapes))
        self.work = Workspace.of(self.layers, size)

    def loss(self, tokens: NDArray[Any], labels: NDArray[np.int64], offset: Any = None) -> float:
        return loss_and_gradient(
            self.layers, self.gradients, tokens, labels, self.work, offset=offset
        )


def batch_of(dims: tuple[int, ...], size: int, seed: int = 0) -> tuple[Any, NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(size, dims[0])), generator.integers(0, dims[-1], size)


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("with_offset", [False, True])
def test_the_gradient_is_that_of_finite_differences(dims, size, with_offset):
    net, (tokens, labels) = Net(dims, size), batch_of(dims, size)
    offset = np.random.default_rng(1).normal(size=(dims[-1], size)) if with_offset else None
    net.loss(tokens, labels, offset)
    found, step = net.gradient.copy(), 1e-6
    for place in range(len(net.weights)):
        net.weights[place] += step
        above = net.loss(tokens, labels, offset)
        net.weights[place] -= 2 * step
        below = net.loss(tokens, labels, offset)
        net.weights[place] += step
        assert found[place] == pytest.approx((above - below) / (2 * step), abs=1e-8)


@given(scale=st.sampled_from([1e-3, 1.0, 1e3, 1e300]), seed=st.integers(0, 99))
def test_the_loss_is_finite_as_long_as_the_logits_are(scale, seed):
    """Logits of 1e300 have no exponential, their differences from the largest one have."""
    net, (tokens, labels) = Net((5, 3), 4, seed), batch_of((5, 3), 4, seed)
    net.weights *= scale
    with np.errstate(under="ignore"):
        assert np.isfinite(net.loss(tokens, labels))
    assert np.isfinite(net.gradient).all()


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("block", [3, 32768])
def test_many_steps_are_those_of_torch(dims, block, monkeypatch):
    """To 1e-9 of the change after 300 steps, blocks larger and smaller than the tensors."""
    monkeypatch.setattr(adam, "_BLOCK", block)
    net = Net(dims, 8)
    start, rate = {name: array.copy() for name, array in net.arrays.items()}, 0.01
    scales = {"fc1.weight": 4.0, "fc2.bias": 0.5}
    rates = [(array.size, rate * scales.get(name, 1.0)) for name, array in start.items()]
    optimizer = Adam(net.weights, rates)
    batches = [batch_of(dims, 8, seed) for seed in range(300)]
    losses = []
    for tokens, labels in batches:
        losses.append(net.loss(tokens, labels))
        optimizer.step(net.gradient)
    theirs, loss = torch_train(start, batches, rate=rate, lr_scales=scales)
    assert np.mean(losses) == pytest.approx(loss, rel=1e-9)
    for name, array in net.arrays.items():
        change = np.abs(theirs[name] - start[name]).max()
        np.testing.assert_allclose(array, theirs[name], atol=1e-9 * change, rtol=0)


def test_a_step_allocates_nothing_that_grows_with_the_net():
    """64 KiB: the buffer in which numpy makes numbers of a mask. The weights take 1.6 MB."""
    import tracemalloc

    net = Net((500, 400, 10), 64)
    batch = batch_of((500, 400, 10), 64)
    optimizer = Adam(net.weights, [(len(net.weights), 0.01)])
    tracemalloc.start()
    net.loss(*batch)
    optimizer.step(net.gradient)

    tracemalloc.reset_peak()
    held, _ = tracemalloc.get_traced_memory()
    net.loss(*batch)
    optimizer.step(net.gradient)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - held < 80_000 < net.weights.nbytes / 16
