"""The setting ``strategy``: what is built for each name.

All strategies get the same clients, batches, meter and evaluation. Flower's own are built from
Flower's classes as they are: nothing of this project is in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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

from flower_ist.classifier.features import RandomFeatures
from flower_ist.classifier.mlp import mlp_shapes
from flower_ist.errors import FlowerIstError
from flower_ist.grids.chain import Filter
from flower_ist.grids.clients import ClientRegistry
from flower_ist.statistics.sums import Head
from flower_ist.strategies.closed_form import ClosedFormStrategy
from flower_ist.strategies.metrics import AlikeReplies
from flower_ist.strategies.submodel import SubmodelStrategy
from flower_ist.submodels.axes import mlp_axes
from flower_ist.wire.protocol import COMPACT
from server_app.fields import kebab
from server_app.network import Network
from server_app.settings import Settings, SettingsError
from server_app.strategies import CLOSED_FORM, RIVALS, SLICED, SUBMODELS

Score = Callable[[Head], float]

FLOWERS: Mapping[str, type[FedAvg]] = {
    "fedavg": FedAvg,
    **dict.fromkeys(RIVALS, FedAvg),
    "fedprox": FedProx,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedavgm": FedAvgM,
    "fedmedian": FedMedian,
    "fedtrimmedavg": FedTrimmedAvg,
}
# What a closed form is called -> its method.
_METHODS = {name: name.removesuffix("-features") for name in CLOSED_FORM}
# Constructor arguments whose names differ from the run config's.
_KEYS = {"penalties": "ridge-penalties", "capacities": "capacities"}


def build_strategy(
    settings: Settings, network: Network, registry: ClientRegistry, score: Score | None = None
) -> Strategy:
    """Build the strategy that the settings name.

    Args:
        settings: of the run.
        network: the one to train, from :func:`server_app.network.network_of`.
        registry: the clients met so far.
        score: gives a head's score on validation data, if there are any.

    Raises:
        SettingsError: the strategy's constructor refuses a setting, or this network.
    """
    if settings.strategy in CLOSED_FORM:
        return build_closed_form(settings, registry, _of_features(score, network.features))
    with _names_of_the_run_config():
        if settings.strategy in SUBMODELS:
            return _submodel(settings, network, registry)
        return _flowers(settings)


def build_closed_form(
    settings: Settings,
    registry: ClientRegistry,
    score: Score | None,
    wire_dtype: str = "float64",
) -> ClosedFormStrategy:
    """Build what asks the clients for their statistics; a strategy that trains has LDA's head.

    Args:
        settings: of the run.
        registry: the clients met so far.
        score: gives a head's score on validation data, if there are any.
        wire_dtype: of the statistics.

    Raises:
        SettingsError: the constructor refuses a setting.
    """
    with _names_of_the_run_config():
        return ClosedFormStrategy(
            method=_METHODS.get(settings.strategy, "lda"),
            penalties=settings.penalties(),
            score=score,
            wire_dtype=wire_dtype,
            claim_bound=settings.claim_bound,
            node_timeout=settings.node_timeout,
            registry=registry,
            min_train_nodes=settings.min_train_nodes,
            min_available_nodes=settings.min_available_nodes,
        )


def before_strategy(settings: Settings, registry: ClientRegistry) -> list[Filter]:
    """Return what a strategy needs in front of it: Flower's own judge no reply."""
    if settings.strategy not in FLOWERS:
        return []
    return [AlikeReplies(registry, settings.claim_bound)]


def _of_features(score: Score | None, features: RandomFeatures | None) -> Score | None:
    """Return the score of a head on features of tokens, where validation data are tokens."""
    if score is None or features is None:
        return score
    return lambda head: score(features.fold(head))


def _submodel(settings: Settings, network: Network, registry: ClientRegistry) -> Strategy:
    return SubmodelStrategy(
        mlp_axes(mlp_shapes(network.dims), network.cut),
        scheme=settings.strategy,
        # Where sub-models overlap it sets the widths of the net, but divides nothing.
        num_slices=(settings.num_slices or None) if settings.strategy in SLICED else None,
        capacities=settings.client_capacities(),
        seed=settings.seed,
        merge_rule=settings.merge_rule,
        norm_bound=settings.norm_bound,
        claim_bound=settings.claim_bound,
        node_timeout=settings.node_timeout,
        registry=registry,
        name_neurons=settings.wire_dtypes()[0] == COMPACT,
        **_common(settings),
        **settings.options(),
    )


def _flowers(settings: Settings) -> Strategy:
    options: dict[str, Any] = settings.options()
    if settings.strategy in ("fedadam", "fedyogi"):
        # float32 numbers: with Python's own, numpy 2 computes FedAdam's new model in float64, which
        # would be sent at twice the bytes.
        options["eta_l"] = settings.learning_rate
        options = {name: np.float32(number) for name, number in options.items()}
    return FLOWERS[settings.strategy](**_common(settings), **options)


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "fraction_train": settings.fraction_train,
        "fraction_evaluate": 0.0,
        "min_train_nodes": settings.min_train_nodes,
        "min_available_nodes": settings.min_available_nodes,
    }


@contextmanager
def _names_of_the_run_config() -> Iterator[None]:
    """Raise what a constructor says of its arguments as an error of the run config's keys."""

    def key(argument: re.Match[str]) -> str:
        return repr(_KEYS.get(argument[0], kebab(argument[0])))

    try:
        yield
    except FlowerIstError as err:
        arguments = rf"\b([a-z]+(_[a-z]+)+|{'|'.join(_KEYS)})\b"
        raise SettingsError(re.sub(arguments, key, str(err))) from err
