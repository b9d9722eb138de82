"""The run's settings: from Flower's run config to one checked, frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from flower_ist.errors import FlowerIstError
from server_app.settings_check import faults

# Keys of earlier run configs, and what takes their place.
REMOVED_KEYS = {
    "steps-schedule": "set 'local-steps' or 'local-epochs', which hold for all rounds",
    "slices-schedule": "set 'num-slices', which holds for all rounds",
    "final-learning-rate": "set 'learning-rate', which holds for all rounds",
    "submodel-optimizer": (
        "leave it out, for sub-models take a round's change as it is; fedavgm, fedadam and fedyogi "
        "have an optimizer on the server"
    ),
    "average-rounds": "leave it out, for the last round's model is evaluated and written",
}


class SettingsError(FlowerIstError):
    """A setting is missing or of no use; the text names its key."""


@dataclass(frozen=True)
class Settings:
    """All settings of a run. Keys in the run config are the same names in kebab-case.

    Attributes:
        strategy: a name in :data:`server_app.build.BUILDERS`.
        num_rounds: server rounds; closed forms need 1, further ones send nothing.
        num_slices: K, slices that the hidden neurons are divided into; 0: as many as clients.
        shares: relative sizes of the slices, comma-separated (``0.5,0.25,0.25``); needs
            ``num_slices``, one number a slice. Empty: equal.
        capacities: share of the hidden neurons that each client can hold, comma-separated, for the
            clients in the order of their names; they repeat if there are more clients. Some
            sub-model strategies need them, some refuse them. Empty: slices decide.
        hidden_width: H, neurons in each hidden layer.
        hidden_layers: number of hidden layers; 0: a linear head (not for sub-models). Closed-form
            strategies always make a linear head.
        local_epochs: how often the median client passes over its own examples in a round. The
            steps of a round follow from it once a run, the same for all clients
            (:mod:`server_app.local_steps`). Not used where ``local_steps`` is above 0.
        local_steps: optimizer steps that a client takes in a round; 0: ``local_epochs`` decides.
        batch_size: examples in a step.
        learning_rate: of the clients' Adam.
        seed: of initial weights, partitions, client sampling and batches.
        packed: send one flat array per message (sub-models). ``false``, with both wire dtypes
            float32, is for ClientApps without ``packed_mod``.
        wire_dtype_down: dtype of the weights that go to the clients: float32, float16, int8 or
            int4 (:mod:`flower_ist.wire.quantize`). Closed forms have none: they send no model.
        wire_dtype_up: dtype of the clients' answers; other than float32 in either direction they
            are changes of the weights.
        proximal_mu: weight of FedProx' proximal term.
        server_learning_rate: of fedavgm, fedadam and fedyogi; 0: 1.0, 0.03 and 0.03.
        server_momentum: of fedavgm.
        trimmed_share: of fedtrimmedavg, and of ``merge_rule`` ``trimmed-mean``: the share of the
            replies that is cut off at each end.
        merge_rule: what becomes of a weight that several clients hold (sub-models): ``mean``,
            ``median`` or ``trimmed-mean``.
        norm_bound: a reply whose update is more than so many times the round's median is refused
            (sub-models); at least 1, or 0: no bound.
        max_examples: a reply that counts more examples is refused (sub-models, closed forms, and
            the statistics before the first round), and a client that says so has no part in the
            median of ``local_epochs``.
        quarantine_after: faulty replies in a row after which a client is asked no more
            (sub-models); 0: never.
        quarantine_rounds: how many rounds that lasts; 0: the rest of the run.
        privacy_clip: largest L2 norm of the update that a client sends; 0: it is sent as it is.
            Settings of a device's own come first (docs/privacy.md).
        privacy_noise: standard deviation, in multiples of ``privacy_clip``, of the Gaussian noise
            that a client adds to each weight of its update.
        standardize: clients standardize their tokens by mean and spread of all clients' tokens.
        replay: a client whose classes are not those of the whole fills its batches up with virtual
            tokens of what it lacks (:mod:`flower_ist.statistics.prior`).
        ridge_blend: weight of a closed-form ridge head beside the net in predictions; 0: the net
            alone (:mod:`flower_ist.classifier.blend`). For each of these three the clients send
            summed statistics of their tokens before the first round.
        ridge_penalties: penalties that ridge tries, comma-separated; the one with the best
            accuracy on the validation part is taken or, without one, the one with the least error
            by generalized cross-validation of the clients' sums.
        validation_share: share of the server's test shard that is set apart for validation, drawn
            by seed within each class; ``accuracy`` is of the rest. 0: nothing is set apart.
        fraction_train: share of the connected clients that train in a round. Sub-model strategies
            ask every client once before any twice; closed forms ask all.
        min_train_nodes: fewest clients, and fewest good replies, in a round.
        min_available_nodes: clients that must be connected before anything starts; or
            ``min_train_nodes``, if that is more.
        node_timeout: seconds to wait for them, and if above 60, for their first answers.
        round_timeout: seconds to wait for a round's replies, training included.
        close_early: end a round's training as soon as every slice has a reply, where more clients
            train than there are slices (sub-models with ``num_slices``).
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
    shares: str
    capacities: str
    hidden_width: int
    hidden_layers: int
    local_epochs: float
    local_steps: int
    batch_size: int
    learning_rate: float
    seed: int
    packed: bool
    wire_dtype_down: str
    wire_dtype_up: str
    proximal_mu: float
    server_learning_rate: float
    server_momentum: float
    trimmed_share: float
    merge_rule: str
    norm_bound: float
    max_examples: int
    quarantine_after: int
    quarantine_rounds: int
    privacy_clip: float
    privacy_noise: float
    standardize: bool
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
        for key, instead in REMOVED_KEYS.items():
            if key in run_config:
                raise SettingsError(f"{key!r} was removed: {instead}.")
        values: dict[str, Any] = {}
        for field in fields(cls):
            key = field.name.replace("_", "-")
            if key not in run_config:
                raise SettingsError(
                    f"The run config lacks {key!r}: see pyproject.toml for all keys."
                )
            values[field.name] = _typed(key, run_config[key], str(field.type))
        settings = cls(**values)
        if fault := next(faults(settings), ""):
            raise SettingsError(fault)
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
