"""The setting ``strategy``: every name, what it refuses, and what is built for it.

All of them get the same clients, batches, meter and evaluation. Flower's own strategies are built
from Flower's classes as they are: nothing of this project is in them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Strategy,
)

from flower_ist.classifier.mlp import mlp_shapes
from flower_ist.grids.clients import ClientRegistry
from flower_ist.statistics.sums import Head
from flower_ist.strategies.closed_form import METHODS, ClosedFormStrategy
from flower_ist.strategies.submodel import SubmodelStrategy
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.schemes import SCHEMES
from server_app.settings import Settings, SettingsError

Score = Callable[[Head], float]
Builder = Callable[[Settings, Sequence[int], ClientRegistry, Score | None], Strategy]


def _submodel(
    settings: Settings, dims: Sequence[int], registry: ClientRegistry, score: Score | None
) -> Strategy:
    return SubmodelStrategy(
        mlp_axes(mlp_shapes(dims)),
        scheme=settings.strategy,
        num_slices=settings.num_slices or None,
        shares=settings.slice_shares(),
        capacities=settings.client_capacities(),
        seed=settings.seed,
        merge_rule=settings.merge_rule,
        trimmed_share=settings.trimmed_share,
        norm_bound=settings.norm_bound,
        max_examples=settings.max_examples,
        quarantine_after=settings.quarantine_after,
        quarantine_rounds=settings.quarantine_rounds,
        node_timeout=settings.node_timeout,
        registry=registry,
        **_common(settings),
    )


def _closed_form(
    settings: Settings, dims: Sequence[int], registry: ClientRegistry, score: Score | None
) -> Strategy:
    return ClosedFormStrategy(
        method=settings.strategy,
        penalties=settings.penalties(),
        score=score,
        max_examples=settings.max_examples,
        node_timeout=settings.node_timeout,
        registry=registry,
        min_train_nodes=settings.min_train_nodes,
        min_available_nodes=settings.min_available_nodes,
    )


def _flowers(
    strategy: type[FedAvg], options: Callable[[Settings], dict[str, Any]] = lambda _: {}
) -> Builder:
    """Return the builder of a strategy of Flower's own that takes these options."""
    return lambda settings, dims, registry, score: strategy(
        **_common(settings), **options(settings)
    )


def _adaptive(settings: Settings) -> dict[str, Any]:
    """Return the options of Reddi et al., "Adaptive Federated Optimization", as Flower names them.

    Betas and tau are Flower's defaults. All are float32 numbers: with Python's own, numpy 2
    computes FedAdam's new model in float64, which would be sent at twice the bytes.
    """
    return {
        "eta": np.float32(settings.server_learning_rate or 0.03),
        "eta_l": np.float32(settings.learning_rate),
        "beta_1": np.float32(0.9),
        "beta_2": np.float32(0.99),
        "tau": np.float32(1e-3),
    }


def _momentum(settings: Settings) -> dict[str, Any]:
    return {
        "server_learning_rate": settings.server_learning_rate or 1.0,
        "server_momentum": settings.server_momentum,
    }


BUILDERS: Mapping[str, Builder] = {
    **dict.fromkeys(SCHEMES, _submodel),
    **dict.fromkeys(METHODS, _closed_form),
    "fedavg": _flowers(FedAvg),
    "fedprox": _flowers(FedProx, lambda settings: {"proximal_mu": settings.proximal_mu}),
    "fedadam": _flowers(FedAdam, _adaptive),
    "fedyogi": _flowers(FedYogi, _adaptive),
    "fedavgm": _flowers(FedAvgM, _momentum),
    "fedmedian": _flowers(FedMedian),
    "fedtrimmedavg": _flowers(FedTrimmedAvg, lambda settings: {"beta": settings.trimmed_share}),
}


def check_strategy(settings: Settings) -> None:
    """Refuse a strategy that does not exist, and settings that it would not follow.

    Raises:
        SettingsError: with one sentence that names the key.
    """
    name = settings.strategy
    if name not in BUILDERS:
        raise SettingsError(f"'strategy' is {name!r}, but must be one of: {', '.join(BUILDERS)}.")
    scheme = SCHEMES.get(name)
    if scheme is None:
        if settings.capacities:
            raise SettingsError(
                f"'capacities' is {settings.capacities!r}, but {name!r} gives every client the "
                f"same: leave it empty, or choose one of: {', '.join(SCHEMES)}."
            )
        for key, value, unused in (
            ("merge-rule", settings.merge_rule, "mean"),
            ("norm-bound", settings.norm_bound, 0.0),
        ):
            if value != unused:
                raise SettingsError(
                    f"{key!r} is {value!r}, but {name!r} does not follow it: leave it at "
                    f"{unused!r}, or choose a sub-model strategy, e.g. ist."
                )
    else:
        if settings.hidden_layers == 0:
            raise SettingsError(
                f"'hidden-layers' is 0, but {name!r} divides hidden neurons: set at least 1, or "
                "choose a strategy that trains the whole model, e.g. fedavg."
            )
        if not scheme.disjoint and not settings.capacities:
            raise SettingsError(
                f"'capacities' is empty, but {name!r} needs the share of the neurons that each "
                "client can hold, e.g. '0.5' for half of them at each client."
            )
    if settings.close_early and (scheme is None or not scheme.disjoint or not settings.num_slices):
        raise SettingsError(
            "'close-early' ends a round once every slice is back: set 'num-slices' and choose a "
            "strategy with disjoint slices, e.g. ist, or set it to false."
        )
    if name in METHODS and settings.privacy_clip:
        raise SettingsError(
            f"'privacy-clip' is {settings.privacy_clip}, but the sums that {name!r} asks for are "
            "not protected by it: set it to 0, or choose a strategy that trains."
        )
    if settings.privacy_clip and (settings.standardize or settings.replay or settings.ridge_blend):
        raise SettingsError(
            f"'privacy-clip' is {settings.privacy_clip}, but the statistics that clients send "
            "before the first round are not protected by it: set 'standardize' and 'replay' to "
            "false and 'ridge-blend' to 0."
        )


def model_dims(settings: Settings, dim: int, num_classes: int) -> list[int]:
    """Return the widths (D, H1, ..., C) of the model that the strategy makes."""
    layers = 0 if settings.strategy in METHODS else settings.hidden_layers
    return [dim, *[settings.hidden_width] * layers, num_classes]


def build_strategy(
    settings: Settings, dims: Sequence[int], registry: ClientRegistry, score: Score | None = None
) -> Strategy:
    """Build the strategy that the settings name.

    Args:
        settings: that :func:`check_strategy` has passed.
        dims: of the model, from :func:`model_dims`.
        registry: the clients met so far.
        score: gives a head's score on validation data, if there are any.

    Raises:
        FlowerIstError: the settings cannot be used with this network.
    """
    # Flower's own strategies draw their clients from Python's global generator. Node ids are random
    # outside this process, so who is drawn differs from run to run where not all are.
    random.seed(settings.seed)
    return BUILDERS[settings.strategy](settings, dims, registry, score)


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "fraction_train": settings.fraction_train,
        "fraction_evaluate": 0.0,
        "min_train_nodes": settings.min_train_nodes,
        "min_available_nodes": settings.min_available_nodes,
    }
