"""The run's settings: type, bound, choices, default and meaning of each key, in one place.

Flower hands a ServerApp a flat run config; :meth:`Settings.from_run_config` makes one checked,
frozen object of it. What a strategy's constructor checks is not repeated here: it is built before
anything starts (:mod:`server_app.build`). docs/settings.md and what ``flower-ist compare`` knows of
the keys are made of this model (:mod:`server_app.usage`), so it needs neither flwr nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from server_app.fields import (
    Bound,
    Cut,
    Folder,
    Numbers,
    Strategy,
    WireDtype,
    kebab,
    numbers,
    setting,
)
from server_app.rules import check_rules
from server_app.settings_error import REMOVED_KEYS, SettingsError, sentence_of
from server_app.strategies import OPTIONS, SLICED, SUBMODELS, TRAINED, parse_options

__all__ = ["Settings", "SettingsError"]


class Settings(BaseModel):
    """All settings of a run. Keys in the run config are the same names in kebab-case."""

    model_config = ConfigDict(
        frozen=True, strict=True, alias_generator=kebab, allow_inf_nan=False, validate_default=True
    )

    # --- the strategy
    strategy: Strategy = setting("ist", "What trains.")
    strategy_options: str = setting(
        "",
        "What only this strategy's constructor takes, if not as below: `name=number`, with spaces "
        "between them.",
        tuple(OPTIONS),
    )
    num_rounds: int = setting(10, "Server rounds. Closed forms need one.", TRAINED, ge=1)
    target_accuracy: float = setting(
        0.0,
        "End the run after the first round with this accuracy on the validation part, or without "
        "one on the test part; 0: never.",
        TRAINED,
        ge=0,
        le=1,
    )
    patience: int = setting(
        0,
        "End the run when that accuracy has not risen for so many rounds; 0: never.",
        TRAINED,
        ge=0,
    )
    num_slices: int = setting(
        0,
        "K, slices that the hidden neurons are divided into; 0: as many as clients. With skewed "
        "data fewer do better, such as 4, each trained by several clients. `fedavg-narrow` has the "
        "width of one of them.",
        (*SLICED, "fedavg-narrow"),
        also_with="slice-bytes",
        ge=0,
    )
    capacities: Numbers = setting(
        "",
        "Share of the hidden neurons that each client can hold, with commas between them, in the "
        "order in which their nodes were registered; they repeat if there are more clients. Empty: "
        "slices decide. A must where sub-models overlap.",
        SUBMODELS,
    )
    seed: int = setting(0, "Of initial weights, partitions, client sampling and batches.", ge=0)

    # --- the model and its training
    hidden_width: int = setting(
        1024,
        "H, neurons in each hidden layer that is cut, or in each one with `cut=all`.",
        TRAINED,
        ge=1,
    )
    hidden_layers: int = setting(
        1, "Number of hidden layers; 0: a linear head (not for sub-models).", TRAINED, ge=0
    )
    cut: Cut = setting(
        "alternate",
        "Which hidden layers sub-models divide: `alternate`, every second one, so that no weight "
        "is cut on both sides, and the layers between have H / K neurons; or `all`, as the paper "
        "does.",
        TRAINED,
    )
    slice_bytes: int = setting(
        0,
        "Most bytes of a train message: H is chosen so that a slice, and the whole model of "
        "`fedavg-narrow`, takes no more on the wire. Needs `num-slices`. 0: `hidden-width` "
        "decides.",
        TRAINED,
        ge=0,
    )
    local_epochs: float = setting(
        12.0,
        "How often the median client passes over its own examples in a round. The steps of a round "
        "follow from it once a run, the same for all clients.",
        TRAINED,
        gt=0,
        hint="; to set the steps yourself, leave it as it is and set 'local-steps'",
    )
    local_steps: int = setting(
        0,
        "Optimizer steps that a client takes in a round; 0: `local-epochs` decides.",
        TRAINED,
        ge=0,
    )
    batch_size: int = setting(64, "Examples in a step.", TRAINED, ge=1)
    learning_rate: float = setting(0.001, "Of the clients' Adam.", TRAINED, gt=0)
    standardize: bool = setting(
        True, "Clients standardize tokens by mean and spread of all clients' tokens.", TRAINED
    )
    replay: bool = setting(
        True,
        "A client whose classes are not those of the whole fills its batches up with virtual "
        "tokens of what it lacks.",
        TRAINED,
    )
    lda_skip: bool = setting(
        True,
        "Half of linear discriminant analysis's log-probabilities is added to the net's logits, in "
        "training too. For this, `standardize` and `replay` clients send summed statistics of "
        "their tokens once.",
        TRAINED,
    )
    ridge_penalties: Numbers = setting(
        "1,3,10,30,100,300,1000",
        "Penalties that ridge regression and discriminant analysis try, with commas between them. "
        "The best on the validation part is taken or, without one, the one with which ridge has "
        "the least error by generalized cross-validation.",
        ("ridge", "ridge-features", "lda"),
        also_with="lda-skip",
    )

    # --- bytes and privacy
    wire_dtype: WireDtype = setting(
        "compact",
        "Dtype of the model on the wire: float32, float16, int8, int4 or compact (a bit or two a "
        "weight); two for down and up, as `int8:int4`. Other than float32, clients answer with "
        "changes.",
        TRAINED,
    )
    privacy_clip: float = setting(
        0.0,
        "Largest L2 norm of the update that a client sends; 0: it is sent as it is. A device's own "
        "setting comes first ([privacy](privacy.md)).",
        TRAINED,
        ge=0,
    )
    privacy_noise: float = setting(
        0.0,
        "Standard deviation, in multiples of `privacy-clip`, of the Gaussian noise that a client "
        "adds to each weight of its update.",
        TRAINED,
        ge=0,
    )

    # --- faulty and hostile clients
    merge_rule: str = setting(
        "mean",
        "What becomes of a weight that several clients hold: mean, median, or trimmed-mean:0.25 "
        "with the share that is cut off at each end.",
        SUBMODELS,
    )
    norm_bound: Bound = setting(
        0.0,
        "A reply whose update is more than so many times the round's median is refused; at least "
        "1, or 0: no bound.",
        SUBMODELS,
    )
    claim_bound: Bound = setting(
        20.0,
        "Of three clients or more, statistics count for at most so many times the examples of the "
        "median client, and an update for three times as many; statistics of tokens that are much "
        "larger than the others' are refused. At least 1, or 0: no bound.",
    )

    # --- clients and time
    fraction_train: float = setting(
        1.0,
        "Share of the connected clients that train in a round. Sub-models ask every client once "
        "before any twice.",
        TRAINED,
        gt=0,
        le=1,
    )
    min_train_nodes: int = setting(2, "Fewest clients, and fewest good replies, in a round.", ge=1)
    min_available_nodes: int = setting(
        2,
        "Clients that must be connected before anything starts; or `min-train-nodes`, if that is "
        "more.",
        ge=1,
    )
    node_timeout: float = setting(
        30.0,
        "Seconds to wait for them, for their first answers if above 60, and after a round without "
        "enough replies because clients were silent.",
        ge=0,
    )
    round_timeout: float = setting(
        600.0, "Seconds to wait for a round's replies, training included.", ge=1
    )
    close_early: bool = setting(
        False,
        "End a round's training as soon as every slice has a reply, where more clients train than "
        "there are slices. Needs `num-slices`.",
        SLICED,
    )

    # --- data, evaluation and output
    data_dir: Folder = setting(
        "",
        "Absolute folder with the shards `client-0`, `client-1`, ... (simulation) and `test` (the "
        "server's). Empty: the embedded demo tokens.",
    )
    validation_share: float = setting(
        0.0,
        "Share of the server's test shard that is set apart for validation, drawn within each "
        "class, the same for each seed; `accuracy` is of the rest.",
        ge=0,
        lt=1,
    )
    output_dir: Folder = setting(
        "",
        "Absolute folder for the run's log, settings and model. Empty: a new folder below "
        "`~/flower-ist-runs`.",
    )
    resume: bool = setting(
        False,
        "Go on with the run in `output-dir` after its last checkpoint; begin it if there is none.",
    )
    keep_checkpoints: int = setting(
        2, "How many of the latest checkpoints are kept; 0: none, and no resume.", ge=0
    )

    @classmethod
    def from_run_config(cls, run_config: Mapping[str, Any]) -> Self:
        """Check a run config and turn it into settings.

        Raises:
            SettingsError: with one sentence that names the key.
        """
        for key, instead in REMOVED_KEYS.items():
            if key in run_config:
                raise SettingsError(f"{key!r} was removed: {instead}.")
        for key in map(kebab, cls.model_fields):
            if key not in run_config:
                raise SettingsError(
                    f"The run config lacks {key!r}: see pyproject.toml for all keys."
                )
        try:
            return cls.model_validate(dict(run_config))
        except ValidationError as err:
            raise SettingsError(sentence_of(err, cls.model_fields)) from None

    def to_run_config(self) -> dict[str, Any]:
        """Return the settings under their kebab-case keys."""
        return self.model_dump(by_alias=True)

    def options(self) -> dict[str, Any]:
        """Return what only the strategy's constructor takes, keyed by its keywords."""
        return parse_options(self.strategy, self.strategy_options)

    def client_capacities(self) -> list[float] | None:
        """Return the share of the neurons that each client can hold, or None."""
        return numbers(self.capacities) or None

    def penalties(self) -> list[float]:
        """Return the ridge penalties to try."""
        return numbers(self.ridge_penalties)

    def wire_dtypes(self) -> tuple[str, str]:
        """Return the dtypes on the wire, down and up."""
        down, _, up = self.wire_dtype.partition(":")
        return down, up or down

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        check_rules(self)
        return self
