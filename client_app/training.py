"""Local training: a set number of steps of Adam, started afresh in each round."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from client_app.batches import Batches


def train(model: nn.Module, batches: Batches) -> float:
    """Train with Adam, started afresh, and return the mean loss of the steps.

    Adam is fresh because the slot of a neuron holds another one after a repartition: old moments
    would belong to somebody else. A slice's summed weights are larger than the model's own by a
    factor that the server names; their learning rate is too, so that a step moves the model's
    weights as far as it would without the cut (docs/method.md).

    With ``proximal_mu`` FedProx' term ``mu / 2 ||w - w_sent||^2`` is added to the loss that is
    minimized (Li et al., MLSys 2020, https://arxiv.org/abs/1812.06127, equation 2), though not to
    the loss that is returned. Flower's documentation leaves out the square; the paper has it.
    """
    model.train()
    settings = batches.settings
    mu = settings.proximal_mu
    sent = [weight.detach().clone() for weight in model.parameters()] if mu else []
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        by_scale.setdefault(settings.lr_scales.get(name, 1.0), []).append(weight)
    groups = [
        {"params": weights, "lr": settings.learning_rate * scale}
        for scale, weights in by_scale.items()
    ]
    optimizer = torch.optim.Adam(groups, fused=True)
    total = torch.zeros(())
    for tokens, labels in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(tokens), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if mu:
            _add_proximal_gradient(model, sent, mu)
        optimizer.step()
        total += loss.detach()
    return float(total) / max(1, settings.local_steps)


def _add_proximal_gradient(model: nn.Module, sent: Sequence[torch.Tensor], mu: float) -> None:
    """Add the proximal term's gradient, ``mu (w - w_sent)``, to the gradients that are there."""
    for weight, start in zip(model.parameters(), sent, strict=True):
        if weight.grad is not None:
            weight.grad.add_(weight.detach() - start, alpha=mu)
