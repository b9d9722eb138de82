"""A copy of a module to experiment on: float64, evaluation mode, no constant left as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

State = dict[str, NDArray[Any]]
K = TypeVar("K")


class Subject:
    """A module and an example, made ready for proofs.

    Equal values hide mistakes: zeros, ones and running statistics become random numbers, and so
    does an example of zeros.

    Args:
        model: it is copied.
        inputs: its arguments.
        seed: of the random numbers.

    Attributes:
        state: the copy's tensors in float64.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.inputs = tuple(self._as_input(value) for value in inputs)
        training = model.training
        with torch.no_grad():
            model.eval()(*inputs)  # where a hook computes weights, they can be copied after this
        self.model = copy.deepcopy(model).double().cpu()
        model.train(training)
        self.state: State = {
            name: self._randomized(name, tensor.detach().cpu().numpy().copy())
            for name, tensor in self.model.state_dict().items()
        }
        tied: dict[int, str] = {}
        for name, tensor in self.model.state_dict().items():
            first = tied.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
            if self.state[first].shape == self.state[name].shape:
                self.state[name] = self.state[first]
        self.model.load_state_dict({name: torch.tensor(t) for name, t in self.state.items()})

    def copy(self) -> nn.Module:
        """Return a copy of the module, to be changed."""
        return copy.deepcopy(self.model)

    def outputs(self, changes: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return all that the module computes with other tensors, as one vector."""
        state = {name: torch.as_tensor(tensor) for name, tensor in changes.items()}
        with torch.no_grad():
            return self.vector(self.call(self.model, state)).numpy()

    def call(self, module: nn.Module, state: Mapping[str, Tensor]) -> Any:
        """Return what a module computes with these tensors in the place of its own."""
        with operation_by_operation():
            return torch.func.functional_call(
                module, dict(state), self.inputs, tie_weights=False, strict=False
            )

    @staticmethod
    def vector(outputs: Any) -> Tensor:
        """Return all floating-point tensors of a module's outputs as one vector."""
        return torch.cat([tensor.reshape(-1) for tensor in _tensors(outputs)] or [torch.zeros(0)])

    def _as_input(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value.cpu() if isinstance(value, Tensor) else value
        value = value.detach().cpu().double()
        if value.numel() and bool((value == value.reshape(-1)[0]).all()):
            value = torch.as_tensor(self.random.standard_normal(value.shape))
        return value

    def _randomized(self, name: str, tensor: NDArray[Any]) -> NDArray[Any]:
        if tensor.dtype.kind != "f" or not tensor.size:
            return tensor
        if name.endswith("running_var"):
            return 0.5 + self.random.random(tensor.shape)
        noise = 0.3 * self.random.standard_normal(tensor.shape)
        if tensor.ndim <= 1 or (tensor == tensor.flat[0]).all():
            return np.asarray(tensor + noise)
        return tensor


@contextmanager
def operation_by_operation() -> Iterator[None]:
    """Keep torch from its fused kernel of a transformer layer, which hides what is in it."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def times_along(
    tensor: Tensor, axis: int, factors: Sequence[Tensor], lengths: Sequence[int]
) -> Tensor:
    """Return a tensor times a factor for each part of an axis; the parts have these lengths."""
    along = [factor.expand(length) for factor, length in zip(factors, lengths, strict=True)]
    return tensor * torch.cat(along).reshape(-1, *[1] * (tensor.ndim - axis - 1))


def slopes(outputs: Tensor, factors: Mapping[K, Tensor]) -> dict[K, float]:
    """Return d(outputs along a random direction) / d(factor) of each factor."""
    direction = np.random.default_rng(0).standard_normal(len(outputs))
    along = outputs @ torch.as_tensor(direction)
    if not along.requires_grad:
        return dict.fromkeys(factors, 0.0)
    found = torch.autograd.grad(along, list(factors.values()), allow_unused=True)
    return {
        key: 0.0 if slope is None else float(slope)
        for key, slope in zip(factors, found, strict=True)
    }


def as_inputs(example: Any) -> tuple[Any, ...]:
    """Return a module's arguments: a tuple as it is, anything else as the only one."""
    return example if isinstance(example, tuple) else (example,)


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _tensors(value)
    elif isinstance(outputs, list | tuple):
        for value in outputs:
            yield from _tensors(value)
