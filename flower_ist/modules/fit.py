"""Make a client's module as wide as the slice that it was sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor, nn

from flower_ist.errors import FlowerIstError
from flower_ist.modules.adapters import adapter_for
from flower_ist.modules.torch_state import sendable
from flower_ist.wire.protocol import LR_SCALES_KEY

_Module = TypeVar("_Module", bound=nn.Module)


class FitError(FlowerIstError):
    """What was received is not a slice of this module."""


def fit(model: _Module, received: Message | ArrayRecord | Mapping[str, Tensor]) -> _Module:
    """Put a slice into a module and make the module as narrow as the slice; return the module.

        model = fit(make_model(), message)  # in the place of load_state_dict

    The module stays what it was: its own ``forward``, in its own dtype. Its ``state_dict`` holds
    what was sent, so the reply is ``ArrayRecord(model.state_dict())`` as ever: parameters that do
    not travel (``requires_grad=False``) are left out, and bfloat16 goes back as float32.

    Given a message whose tensors are scaled, gradients are multiplied by what makes a step of plain
    SGD, with or without momentum, as long as it is in the whole model (docs/method.md). Adam's do
    not depend on it.

    Args:
        model: the module as wide as on the server; it is changed.
        received: a train message with one ArrayRecord, an ArrayRecord, or a state.

    Raises:
        FitError: the tensors are not those of the module.
    """
    state, scales = _content(received)
    own = model.state_dict(keep_vars=True)
    staying = {n for n, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    _check_names(model, state, own, staying)
    whole = {name: tuple(tensor.shape) for name, tensor in own.items()}
    fitted: dict[int, nn.Parameter] = {}  # a parameter with two names stays one
    for name, tensor in state.items():
        _replace(model, name, own[name], tensor, fitted)
    for path, module in reversed(list(model.named_modules())):  # what is inside comes first
        prefix = f"{path}." if path else ""
        inside = {n[len(prefix) :]: s for n, s in whole.items() if n.startswith(prefix)}
        changed = any(
            state[prefix + n].shape != s for n, s in inside.items() if prefix + n in state
        )
        if changed and (correct := adapter_for(module)) is not None:
            correct(module, inside)
    for name, parameter in model.named_parameters():
        if name in state:
            ratio = max(1, math.prod(whole[name])) / max(1, parameter.numel())
            _scale_gradient(parameter, scales, scales.get(name, 1.0) ** 2 / ratio)
    left_out = own.keys() - state.keys()
    model.register_state_dict_post_hook(  # type: ignore[no-untyped-call]
        lambda module, found, prefix, metadata: _as_sent(found, prefix, left_out)
    )
    return model


def _content(
    received: Message | ArrayRecord | Mapping[str, Any],
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the tensors and the factors of their learning rates, if the message names any."""
    scales: dict[str, float] = {}
    if isinstance(received, Message):
        for config in received.content.config_records.values():
            text = config.get(LR_SCALES_KEY)
            if isinstance(text, str):
                scales = json.loads(text)
        records = list(received.content.array_records.values())
        if len(records) != 1:
            raise FitError(f"The message has {len(records)} ArrayRecords: give fit one of them.")
        received = records[0]
    if isinstance(received, ArrayRecord):
        received = received.to_torch_state_dict()
    return {name: torch.as_tensor(tensor) for name, tensor in received.items()}, scales


def _check_names(
    model: nn.Module, state: Mapping[str, Tensor], own: Mapping[str, Tensor], staying: set[str]
) -> None:
    if unknown := sorted(state.keys() - own.keys()):
        raise FitError(
            f"{unknown[0]!r} was sent, but {type(model).__name__} has no such tensor: make the "
            "same module as the server."
        )
    if missing := sorted(own.keys() - state.keys() - staying):
        raise FitError(
            f"{missing[0]!r} of {type(model).__name__} was not sent: freeze the parameters that "
            "do not travel with requires_grad_(False), as the server's module does."
        )
    for name, tensor in state.items():
        shape, whole = tuple(tensor.shape), tuple(own[name].shape)
        if len(shape) != len(whole) or any(n > h for n, h in zip(shape, whole, strict=True)):
            raise FitError(
                f"{name!r} was sent as {list(shape)}, which is no part of the module's "
                f"{list(whole)}: make the module as wide as the server does."
            )


def _replace(
    model: nn.Module, name: str, old: Tensor, new: Tensor, fitted: dict[int, nn.Parameter]
) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    value = new.detach().to(device=old.device, dtype=old.dtype, copy=True)
    if not isinstance(old, nn.Parameter):
        module._buffers[leaf] = value  # register_buffer forgets whether it is persistent
    elif old.shape == value.shape:
        with torch.no_grad():
            old.copy_(value)
    else:
        if id(old) not in fitted:
            fitted[id(old)] = nn.Parameter(value, requires_grad=old.requires_grad)
        setattr(module, leaf, fitted[id(old)])


def _scale_gradient(parameter: nn.Parameter, scales: Mapping[str, float], factor: float) -> None:
    if scales and parameter.requires_grad and abs(factor - 1) > 1e-3:
        parameter.register_hook(lambda g: g * factor)  # type: ignore[no-untyped-call]


def _as_sent(state: dict[str, Any], prefix: str, left_out: set[str]) -> None:
    """Leave in a state what was sent, in dtypes that numpy has."""
    for name in left_out:
        state.pop(prefix + name, None)
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):
            state[name] = sendable(tensor)
