"""The classifier in torch: what its net in numpy is checked and timed against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from flower_ist.classifier.mlp import layers_of

Batch = tuple[NDArray[Any], NDArray[np.int64]]


def torch_mlp(arrays: Mapping[str, NDArray[Any]]) -> nn.Sequential:
    """Build the net of some arrays, with weights of its own."""
    modules: list[nn.Module] = []
    for weight, bias in layers_of(arrays):
        linear = nn.Linear(*reversed(weight.shape), device="meta")
        linear.weight = nn.Parameter(torch.tensor(weight))
        linear.bias = nn.Parameter(torch.tensor(bias))
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def torch_train(
    arrays: Mapping[str, NDArray[Any]],
    batches: Iterable[Batch],
    *,
    rate: float,
    lr_scales: Mapping[str, float] | None = None,
    mu: float = 0.0,
    offset: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> tuple[dict[str, NDArray[Any]], float]:
    """Train as torch does it, with Adam, and return the arrays and the mean loss of the steps."""
    model = torch_mlp(arrays)
    weights = dict(zip(arrays, model.parameters(), strict=True))
    sent = {name: weight.detach().clone() for name, weight in weights.items()}
    groups = []
    for name, weight in weights.items():
        scale = (lr_scales or {}).get(name, 1.0)
        groups.append({"params": [weight], "lr": rate * scale})
    optimizer = torch.optim.Adam(groups, fused=True)
    losses = []
    for tokens, labels in batches:
        optimizer.zero_grad()
        logits = model(torch.from_numpy(tokens))
        if offset is not None:
            logits = logits + torch.from_numpy(offset(tokens).T)
        loss = functional.cross_entropy(logits, torch.from_numpy(labels))
        loss.backward()  # type: ignore[no-untyped-call]
        for name, weight in weights.items():
            if mu and weight.grad is not None:
                weight.grad.add_(weight.detach() - sent[name], alpha=mu)
        optimizer.step()
        losses.append(float(loss.detach()))
    found = {name: weight.detach().numpy() for name, weight in weights.items()}
    return found, float(np.mean(losses)) if losses else 0.0
