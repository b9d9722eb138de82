"""The run's settings: from Flower's run config to one checked, frozen object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from flower_ist.quantise import WIRE_DTYPES
from flower_ist.robust import MERGE_RULES
from flower_ist.server_optimiser import SERVER_OPTIMISERS


class SettingsError(ValueError):
    """A setting is unknown, missing, or of no use; the text names its key."""


@dataclass(frozen=True)
class Settings:
    """All settings of a run. Keys in the run config are the same names in kebab-case.

    Attributes:
        strategy: a name in :data:`server_app.strategies.BUILDERS`.
        num_rounds: server rounds.
        num_slices: K, slices that the hidden neurons are divided into; 0: as many as clients.
        slices_schedule: K by round, comma-separated: ``8,4,2`` holds for equal stretches of the
            rounds, so that slices grow (strategies with disjoint slices that are drawn anew). Where
            there are more slices than clients some rest for a round. Empty: ``num_slices`` always.
        shares: relative sizes of the slices, comma-separated (``0.5,0.25,0.25``); empty: equal.
        capacities: share of the hidden neurons that each client can hold, comma-separated, for the
            clients in the order of their names; they repeat if there are more clients. Some
            sub-model strategies need them, some refuse them. Empty: slices decide.
        hidden_width: H, neurons in each hidden layer.
        hidden_layers: number of hidden layers; 0: a linear head (not for sub-models). Closed-form
            strategies always make a linear head.
        local_steps: optimiser steps that a client takes in a round.
        steps_schedule: the same by round, comma-separated: ``480,160,40`` holds for equal stretches
            of the rounds. Empty: ``local_steps`` always.
        batch_size: examples in a step.
        learning_rate: of the clients' Adam.
        final_learning_rate: the same in the last round, to which it falls from ``learning_rate`` in
            the first as half a cosine; 0: it stays. All three schedules span ``num_rounds``: a run
            that goes on with more rounds follows those of its new length from there on.
        seed: of initial weights, partitions, client sampling and batches.
        packed: send one flat array per message (sub-models).
        wire_dtype_down: dtype of the weights that go to the clients: float32, float16, int8 or
            int4 (:mod:`flower_ist.quantise`).
        wire_dtype_up: dtype of the clients' answers; other than float32 in either direction they
            are changes of the weights.
        proximal_mu: weight of FedProx' proximal term.
        server_learning_rate: of fedavgm, fedadam and fedyogi; 0: 1.0, 0.03 and 0.03. Also of
            ``submodel_optimiser``; 0: 1.0 for ``momentum``, 0.03 for ``adam``.
        server_momentum: of fedavgm, and of ``submodel_optimiser`` ``momentum``.
        submodel_optimiser: what the server makes of a round's change (sub-models): ``momentum``,
            ``adam``, or ``none``: it is taken as it is (:mod:`flower_ist.server_optimiser`).
        average_rounds: n: what is evaluated and written as the model is a running mean of the model
            over about the last n rounds (:mod:`flower_ist.weight_average`), while clients go on
            from the model itself; 0: the last round's model.
        trimmed_share: of fedtrimmedavg, and of ``merge_rule`` ``trimmed-mean``: the share of the
            replies that is cut off at each end.
        merge_rule: what becomes of a weight that several clients hold (sub-models): ``mean``,
            ``median`` or ``trimmed-mean``.
        norm_bound: a reply whose update is more than so many times the round's median is refused
            (sub-models); at least 1, or 0: no bound.
        max_examples: a reply that counts more examples is refused (sub-models).
        quarantine_after: faulty replies in a row after which a client is asked no more
            (sub-models); 0: never.
        quarantine_rounds: how many rounds that lasts; 0: the rest of the run.
        privacy_clip: largest L2 norm of the update that a client sends; 0: it is sent as it is.
            Settings of a device's own come first (docs/privacy.md).
        privacy_noise: standard deviation, in multiples of ``privacy_clip``, of the Gaussian noise
            that a client adds to each weight of its update.
        standardise: clients standardise their tokens by mean and spread of all clients' tokens.
        replay: a client whose classes are not those of the whole fills its batches up with virtual
            tokens of what it lacks (:mod:`flower_ist.token_prior`).
        ridge_blend: weight of a closed-form ridge head beside the net in predictions; 0: the net
            alone (:mod:`flower_ist.ridge_blend`). For each of these three the clients send summed
            statistics of their tokens before the first round.
        ridge_penalties: penalties that ridge tries, comma-separated; the one with the best
            accuracy on the validation part is taken.
        validation_share: share of the server's test shard that is set apart for validation, drawn
            by seed within each class; ``accuracy`` is of the rest. 0: nothing is set apart.
        fraction_train: share of the connected clients that train in a round. Sub-model strategies
            ask every client once before any twice.
        min_train_nodes: fewest clients, and fewest good replies, in a round.
        min_available_nodes: clients that must be connected before anything starts.
        node_timeout: seconds to wait for them, and if above 60, for their first answers.
        round_timeout: seconds to wait for a round's replies.
        close_early: end a round's training as soon as every slice has a reply, where more clients
            train than there are slices (sub-models with ``num-slices``).
        data_dir: absolute folder with the shards ``client-0``, ``client-1``, ... (simulation) and
            ``test`` (the server's); empty: the embedded demo tokens.
        output_dir: absolute folder for this run's log, settings and model; empty: a new folder
            below ``~/flower-ist-runs``.
        resume: go on with the run in ``output_dir`` after its last checkpoint; begin it if there is
            none. The same command does for the first start and for every later one.
        keep_checkpoints: how many of the latest checkpoints are kept; 0: none are written, and the
            run cannot be resumed.
    """

    strategy: str
    num_rounds: int
    num_slices: int
    slices_schedule: str
    shares: str
    capacities: str
    hidden_width: int
    hidden_layers: int
    local_steps: int
    steps_schedule: str
    batch_size: int
    learning_rate: float
    final_learning_rate: float
    seed: int
    packed: bool
    wire_dtype_down: str
    wire_dtype_up: str
    proximal_mu: float
    server_learning_rate: float
    server_momentum: float
    submodel_optimiser: str
    average_rounds: int
    trimmed_share: float
    merge_rule: str
    norm_bound: float
    max_examples: int
    quarantine_after: int
    quarantine_rounds: int
    privacy_clip: float
    privacy_noise: float
    standardise: bool
    replay: bool
    ridge_blend: float
    ridge_penalties: str
    validation_share: float
    fraction_train: float
    min_train_nodes: int
    min_available_nodes: int
    node_timeout: float
    round_timeout: float
    close_early: bool
    data_dir: str
    output_dir: str
    resume: bool
    keep_checkpoints: int

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

    def slices_by_stretch(self) -> list[int] | None:
        """Return the number of slices in each stretch of the rounds, or None if it stays.

        Raises:
            SettingsError: the text is not a list of whole numbers.
        """
        return _whole_numbers("slices-schedule", self.slices_schedule) or None

    def steps_by_stretch(self) -> list[int] | None:
        """Return the local steps in each stretch of the rounds, or None if they stay.

        Raises:
            SettingsError: the text is not a list of whole numbers.
        """
        return _whole_numbers("steps-schedule", self.steps_schedule) or None

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
            "average-rounds": (self.average_rounds, 0),
            "max-examples": (self.max_examples, 1),
            "quarantine-after": (self.quarantine_after, 0),
            "quarantine-rounds": (self.quarantine_rounds, 0),
            "keep-checkpoints": (self.keep_checkpoints, 0),
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
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            raise SettingsError(
                f"'final-learning-rate' is {self.final_learning_rate}, but must be at least 0 and "
                f"at most 'learning-rate', {self.learning_rate}."
            )
        if not 0 < self.fraction_train <= 1:
            raise SettingsError(
                f"'fraction-train' is {self.fraction_train}, but must be above 0 and at most 1."
            )
        below = {
            "proximal-mu": (self.proximal_mu, math.inf),
            "ridge-blend": (self.ridge_blend, math.inf),
            "server-learning-rate": (self.server_learning_rate, math.inf),
            "server-momentum": (self.server_momentum, 1),
            "trimmed-share": (self.trimmed_share, 0.5),
            "privacy-clip": (self.privacy_clip, math.inf),
            "privacy-noise": (self.privacy_noise, math.inf),
            "validation-share": (self.validation_share, 1),
        }
        for key, (value, bound) in below.items():
            if not 0 <= value < bound:
                raise SettingsError(
                    f"{key!r} is {value}, but must be at least 0 and below {bound}."
                )
        for key, dtype in (
            ("wire-dtype-down", self.wire_dtype_down),
            ("wire-dtype-up", self.wire_dtype_up),
        ):
            if dtype not in WIRE_DTYPES:
                raise SettingsError(
                    f"{key!r} is {dtype!r}, but must be one of: {', '.join(WIRE_DTYPES)}."
                )
        if self.submodel_optimiser not in ("none", *SERVER_OPTIMISERS):
            raise SettingsError(
                f"'submodel-optimiser' is {self.submodel_optimiser!r}, but must be one of: none, "
                f"{', '.join(SERVER_OPTIMISERS)}."
            )
        if self.merge_rule not in MERGE_RULES:
            raise SettingsError(
                f"'merge-rule' is {self.merge_rule!r}, but must be one of: "
                f"{', '.join(MERGE_RULES)}."
            )
        if self.norm_bound != 0 and not 1 <= self.norm_bound < math.inf:
            raise SettingsError(
                f"'norm-bound' is {self.norm_bound}, but must be at least 1, or 0 for no bound."
            )
        if self.privacy_noise and not self.privacy_clip:
            raise SettingsError(
                f"'privacy-noise' is {self.privacy_noise}, but 'privacy-clip' is 0: noise protects "
                "only an update whose size is bounded."
            )
        if self.num_slices > self.hidden_width:
            raise SettingsError(
                f"'num-slices' is {self.num_slices}, but 'hidden-width' has only "
                f"{self.hidden_width} neurons: use fewer slices or a wider layer."
            )
        for key, text, values in (
            ("steps-schedule", self.steps_schedule, self.steps_by_stretch()),
            ("slices-schedule", self.slices_schedule, self.slices_by_stretch()),
        ):
            if min(values or [1]) < 1:
                raise SettingsError(f"{key!r} is {text!r}, but each number must be at least 1.")
            if len(values or []) > self.num_rounds:
                raise SettingsError(
                    f"{key!r} is {text!r}, but 'num-rounds' is {self.num_rounds}: give at most one "
                    "number a round."
                )
        slices = self.slices_by_stretch()
        if slices and max(slices) > self.hidden_width:
            raise SettingsError(
                f"'slices-schedule' is {self.slices_schedule!r}, but 'hidden-width' has only "
                f"{self.hidden_width} neurons: use fewer slices or a wider layer."
            )
        for key, is_set in (
            ("num-slices", bool(self.num_slices)),
            ("shares", bool(self.shares)),
            ("capacities", bool(self.capacities)),
        ):
            if slices and is_set:
                raise SettingsError(
                    f"'slices-schedule' and {key!r} are both set, but either decides what a client "
                    "holds: leave out one."
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
        if self.resume and not self.output_dir:
            raise SettingsError(
                "'resume' is true, but 'output-dir' is empty: set it to the folder of the run to "
                "go on with."
            )


def _numbers(key: str, text: str) -> list[float]:
    """Return the numbers of a comma-separated text; none for an empty one."""
    try:
        return [float(number) for number in text.split(",")] if text else []
    except ValueError:
        raise SettingsError(
            f"{key!r} must be numbers with commas between them, not {text!r}."
        ) from None


def _whole_numbers(key: str, text: str) -> list[int]:
    """Return the whole numbers of a comma-separated text; none for an empty one."""
    try:
        return [int(number) for number in text.split(",")] if text else []
    except ValueError:
        raise SettingsError(
            f"{key!r} must be whole numbers with commas between them, not {text!r}."
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
