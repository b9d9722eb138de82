"""One round's settings, as the server sent them, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecord

from flower_ist.errors import ArgumentError
from flower_ist.wire.protocol import FEATURES_KEY, LR_SCALES_KEY
from flower_ist.wire.reported import finite

# The key with which Flower's FedProx sends the weight of its proximal term.
PROXIMAL_KEY = "proximal-mu"


@dataclass(frozen=True)
class LocalSettings:
    """One round's settings, as the server sent them."""

    server_round: int
    local_steps: int
    batch_size: int
    learning_rate: float
    seed: int
    lr_scales: Mapping[str, float] = field(default_factory=dict)
    proximal_mu: float = 0.0
    random_features: int = 0

    @classmethod
    def from_config(cls, config: ConfigRecord) -> LocalSettings:
        """Read the settings from a message's ConfigRecord.

        Raises:
            ArgumentError: a key is missing or its value is invalid.
        """
        return cls(
            server_round=_whole(config, "server-round"),
            local_steps=_whole(config, "local-steps"),
            batch_size=_whole(config, "batch-size", least=1),
            learning_rate=_rate(config.get("learning-rate"), "learning-rate"),
            seed=_whole(config, "seed"),
            lr_scales=_scales(str(config.get(LR_SCALES_KEY, "{}"))),
            proximal_mu=_rate(config.get(PROXIMAL_KEY, 0.0), PROXIMAL_KEY),
            random_features=_whole({FEATURES_KEY: 0, **config}, FEATURES_KEY),
        )


def _whole(config: Mapping[str, Any], key: str, least: int = 0) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(
            f"The server sent {key!r} as {value!r}: a whole number of at least {least} is needed."
        )
    return value


def _rate(value: Any, key: str) -> float:
    number = finite(value)
    if number is None or number < 0:
        raise ArgumentError(
            f"The server sent {key!r} as {value!r}: a finite number of at least 0 is needed."
        )
    return number


def _scales(text: str) -> dict[str, float]:
    try:
        scales = json.loads(text)
    except (ValueError, RecursionError):
        scales = None
    if not isinstance(scales, dict):
        raise ArgumentError(
            f"The server sent {LR_SCALES_KEY!r} as {text[:80]!r}: a JSON object is needed."
        )
    return {name: _rate(scale, f"{LR_SCALES_KEY} of {name}") for name, scale in scales.items()}
