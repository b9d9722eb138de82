"""The run's settings: from Flower's run config to one checked, frozen object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


class SettingsError(ValueError):
    """A setting is unknown, missing, or of no use; the text names its key."""


@dataclass(frozen=True)
class Settings:
    """All settings of a run. Keys in the run config are the same names in kebab-case.

    Attributes:
        strategy: a name in :data:`server_app.strategies.BUILDERS`.
        num_rounds: server rounds.
        num_slices: K, slices that the hidden neurons are divided into; 0: as many as clients.
        shares: relative sizes of the slices, comma-separated (``0.5,0.25,0.25``); empty: equal.
        capacities: share of the hidden neurons that each client can hold, comma-separated, for the
            clients in the order of their names; they repeat if there are more clients. Some
            sub-model strategies need them, some refuse them. Empty: slices decide.
        hidden_width: H, neurons in each hidden layer.
        hidden_layers: number of hidden layers; 0: a linear head (not for sub-models). Closed-form
            strategies always make a linear head.
        local_steps: optimiser steps that a client takes in a round.
        batch_size: examples in a step.
        learning_rate: of the clients' Adam.
        seed: of initial weights, partitions, client sampling and batches.
        packed: send one flat array per message (sub-models).
        proximal_mu: weight of FedProx' proximal term.
        server_learning_rate: of fedavgm, fedadam and fedyogi; 0: 1.0, 0.03 and 0.03.
        server_momentum: of fedavgm.
        trimmed_share: of fedtrimmedavg: the share of the replies that is cut off at each end.
        ridge_penalties: penalties that ridge tries, comma-separated; the one with the best
            accuracy on the validation part is taken.
        validation_share: share of the server's test shard that is set apart for validation, drawn
            by seed within each class; ``accuracy`` is of the rest. 0: nothing is set apart.
        fraction_train: share of the connected clients that train in a round.
        min_train_nodes: fewest clients, and fewest good replies, in a round.
        min_available_nodes: clients that must be connected before anything starts.
        node_timeout: seconds to wait for them.
        round_timeout: seconds to wait for a round's replies.
        data_dir: absolute folder with the shards ``client-0``, ``client-1``, ... (simulation) and
            ``test`` (the server's); empty: the embedded demo tokens.
        output_dir: absolute folder for this run's log, settings and model; empty: a new folder
            below ``~/flower-ist-runs``.
    """

    strategy: str
    num_rounds: int
    num_slices: int
    shares: str
    capacities: str
    hidden_width: int
    hidden_layers: int
    local_steps: int
    batch_size: int
    learning_rate: float
    seed: int
    packed: bool
    proximal_mu: float
    server_learning_rate: float
    server_momentum: float
    trimmed_share: float
    ridge_penalties: str
    validation_share: float
    fraction_train: float
    min_train_nodes: int
    min_available_nodes: int
    node_timeout: float
    round_timeout: float
    data_dir: str
    output_dir: str

    @classmethod
    def from_run_config(cls, run_config: Mapping[str, Any]) -> Settings:
        """Check a run config and turn it into settings.

        Raises:
            SettingsError: with one sentence that names the key.
        """
        values: dict[str, Any] = {}
        for field in fields(cls):
            key = field.name.replace("_", "-")
            if key not in run_config:
                raise SettingsError(
                    f"The run config lacks {key!r}: see pyproject.toml for all keys."
                )
            values[field.name] = _typed(key, run_config[key], str(field.type))
        settings = cls(**values)
        settings._check()
        return settings

    def to_run_config(self) -> dict[str, Any]:
        """Return the settings under their kebab-case keys."""
        return {name.replace("_", "-"): value for name, value in asdict(self).items()}

    def slice_shares(self) -> list[float] | None:
        """Return the slices' relative sizes, or None if they are equal.

        Raises:
            SettingsError: the text is not a list of numbers.
        """
        return _numbers("shares", self.shares) or None

    def client_capacities(self) -> list[float] | None:
        """Return the share of the neurons that each client can hold, or None.

        Raises:
            SettingsError: the text is not a list of numbers.
        """
        return _numbers("capacities", self.capacities) or None

    def penalties(self) -> list[float]:
        """Return the ridge penalties to try.

        Raises:
            SettingsError: the text is not a list of numbers.
        """
        return _numbers("ridge-penalties", self.ridge_penalties)

    def _check(self) -> None:
        least = {
            "num-rounds": (self.num_rounds, 1),
            "num-slices": (self.num_slices, 0),
            "hidden-width": (self.hidden_width, 1),
            "hidden-layers": (self.hidden_layers, 0),
            "local-steps": (self.local_steps, 1),
            "batch-size": (self.batch_size, 1),
            "seed": (self.seed, 0),
            "min-train-nodes": (self.min_train_nodes, 1),
            "min-available-nodes": (self.min_available_nodes, 1),
            "node-timeout": (self.node_timeout, 0),
            "round-timeout": (self.round_timeout, 1),
        }
        for key, (value, minimum) in least.items():
            if not value >= minimum:
                raise SettingsError(f"{key!r} is {value}, but must be at least {minimum}.")
        if not 0 < self.learning_rate < math.inf:
            raise SettingsError(f"'learning-rate' is {self.learning_rate}, but must be above 0.")
        if not 0 < self.fraction_train <= 1:
            raise SettingsError(
                f"'fraction-train' is {self.fraction_train}, but must be above 0 and at most 1."
            )
        below = {
            "proximal-mu": (self.proximal_mu, math.inf),
            "server-learning-rate": (self.server_learning_rate, math.inf),
            "server-momentum": (self.server_momentum, 1),
            "trimmed-share": (self.trimmed_share, 0.5),
            "validation-share": (self.validation_share, 1),
        }
        for key, (value, bound) in below.items():
            if not 0 <= value < bound:
                raise SettingsError(
                    f"{key!r} is {value}, but must be at least 0 and below {bound}."
                )
        if self.num_slices > self.hidden_width:
            raise SettingsError(
                f"'num-slices' is {self.num_slices}, but 'hidden-width' has only "
                f"{self.hidden_width} neurons: use fewer slices or a wider layer."
            )
        shares = self.slice_shares()
        if shares is not None and (
            len(shares) != self.num_slices or not all(0 < share < math.inf for share in shares)
        ):
            raise SettingsError(
                f"'shares' is {self.shares!r}, but must be one positive number for each of the "
                f"slices, and 'num-slices' is {self.num_slices}."
            )
        capacities = self.client_capacities()
        if not all(0 < capacity <= 1 for capacity in capacities or []):
            raise SettingsError(
                f"'capacities' is {self.capacities!r}, but must be shares above 0 and at most 1."
            )
        if capacities and (self.num_slices or shares):
            raise SettingsError(
                "'capacities' and 'num-slices' are both set, but either decides what a client "
                "holds: leave out one."
            )
        penalties = self.penalties()
        if not penalties or not all(0 < penalty < math.inf for penalty in penalties):
            raise SettingsError(
                f"'ridge-penalties' is {self.ridge_penalties!r}, but must be one or more numbers "
                "above 0."
            )
        for key, folder in (("data-dir", self.data_dir), ("output-dir", self.output_dir)):
            if folder and not Path(folder).is_absolute():
                raise SettingsError(
                    f"{key!r} is {folder!r}, but must be an absolute path: the server does not "
                    "run in the folder that you start it from."
                )


def _numbers(key: str, text: str) -> list[float]:
    """Return the numbers of a comma-separated text; none for an empty one."""
    try:
        return [float(number) for number in text.split(",")] if text else []
    except ValueError:
        raise SettingsError(
            f"{key!r} must be numbers with commas between them, not {text!r}."
        ) from None


def _typed(key: str, value: Any, kind: str) -> Any:
    """Return a run config value as the field's type; whole numbers do for decimal ones."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "float" and is_number:
        return float(value)
    if kind == "int" and isinstance(value, int) and is_number:
        return value
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    names = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}
    raise SettingsError(f"{key!r} is {value!r}, but must be {names[kind]}.")
