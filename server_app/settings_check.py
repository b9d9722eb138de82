"""What must hold between a run's settings, whatever the strategy; one sentence for what does not.

What a strategy would not follow is refused by :func:`server_app.build.check_strategy`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flower_ist.submodels.robust import MERGE_RULES
from flower_ist.wire.quantize import WIRE_DTYPES

if TYPE_CHECKING:
    from server_app.settings import Settings


def faults(settings: Settings) -> Iterator[str]:
    """Yield what is wrong, each time as one sentence that names the key and says what would do.

    Raises:
        SettingsError: a text that should be a list of numbers is none.
    """
    yield from _numbers(settings)
    yield from _names(settings)
    yield from _protection(settings)
    yield from _slices(settings)
    yield from _capacities(settings)
    yield from _penalties(settings)
    yield from _folders(settings)


def _numbers(settings: Settings) -> Iterator[str]:
    """Yield numbers that are out of their range."""
    least = {
        "num-rounds": (settings.num_rounds, 1),
        "num-slices": (settings.num_slices, 0),
        "hidden-width": (settings.hidden_width, 1),
        "hidden-layers": (settings.hidden_layers, 0),
        "local-steps": (settings.local_steps, 0),
        "batch-size": (settings.batch_size, 1),
        "seed": (settings.seed, 0),
        "max-examples": (settings.max_examples, 1),
        "quarantine-after": (settings.quarantine_after, 0),
        "quarantine-rounds": (settings.quarantine_rounds, 0),
        "keep-checkpoints": (settings.keep_checkpoints, 0),
        "min-train-nodes": (settings.min_train_nodes, 1),
        "min-available-nodes": (settings.min_available_nodes, 1),
        "node-timeout": (settings.node_timeout, 0),
        "round-timeout": (settings.round_timeout, 1),
    }
    for key, (value, minimum) in least.items():
        if not value >= minimum:
            yield f"{key!r} is {value}, but must be at least {minimum}."
    above = {"local-epochs": settings.local_epochs, "learning-rate": settings.learning_rate}
    for key, number in above.items():
        if not 0 < number < math.inf:
            hint = "; to set the steps yourself, leave it as it is and set 'local-steps'"
            hint = hint if key == "local-epochs" else ""
            yield f"{key!r} is {number}, but must be above 0{hint}."
    if not 0 < settings.fraction_train <= 1:
        yield (f"'fraction-train' is {settings.fraction_train}, but must be above 0 and at most 1.")
    below = {
        "proximal-mu": (settings.proximal_mu, math.inf),
        "ridge-blend": (settings.ridge_blend, math.inf),
        "server-learning-rate": (settings.server_learning_rate, math.inf),
        "server-momentum": (settings.server_momentum, 1),
        "trimmed-share": (settings.trimmed_share, 0.5),
        "privacy-clip": (settings.privacy_clip, math.inf),
        "privacy-noise": (settings.privacy_noise, math.inf),
        "validation-share": (settings.validation_share, 1),
    }
    for key, (number, bound) in below.items():
        if not 0 <= number < bound:
            yield f"{key!r} is {number}, but must be at least 0 and below {bound}."


def _names(settings: Settings) -> Iterator[str]:
    """Yield texts that are none of the names that there are."""
    named = {
        "wire-dtype-down": (settings.wire_dtype_down, WIRE_DTYPES),
        "wire-dtype-up": (settings.wire_dtype_up, WIRE_DTYPES),
        "merge-rule": (settings.merge_rule, MERGE_RULES),
    }
    for key, (name, names) in named.items():
        if name not in names:
            yield f"{key!r} is {name!r}, but must be one of: {', '.join(names)}."


def _protection(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the bound for replies and with privacy."""
    if settings.norm_bound != 0 and not 1 <= settings.norm_bound < math.inf:
        yield f"'norm-bound' is {settings.norm_bound}, but must be at least 1, or 0 for no bound."
    if settings.privacy_noise and not settings.privacy_clip:
        yield (
            f"'privacy-noise' is {settings.privacy_noise}, but 'privacy-clip' is 0: noise protects "
            "only an update whose size is bounded."
        )


def _slices(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the number of slices and their sizes."""
    if settings.num_slices > settings.hidden_width:
        yield (
            f"'num-slices' is {settings.num_slices}, but 'hidden-width' has only "
            f"{settings.hidden_width} neurons: use fewer slices or a wider layer."
        )
    shares = settings.slice_shares()
    if shares is not None and (
        len(shares) != settings.num_slices or not all(0 < share < math.inf for share in shares)
    ):
        yield (
            f"'shares' is {settings.shares!r}, but must be one positive number for each of the "
            f"slices, and 'num-slices' is {settings.num_slices}."
        )


def _capacities(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the shares of the neurons that clients can hold."""
    capacities = settings.client_capacities() or []
    if not all(0 < capacity <= 1 for capacity in capacities):
        yield f"'capacities' is {settings.capacities!r}, but must be shares above 0 and at most 1."
    if capacities and (settings.num_slices or settings.shares):
        yield (
            "'capacities' and 'num-slices' are both set, but either decides what a client holds: "
            "leave out one."
        )


def _penalties(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the penalties of ridge."""
    penalties = settings.penalties()
    if not penalties or not all(0 < penalty < math.inf for penalty in penalties):
        yield (
            f"'ridge-penalties' is {settings.ridge_penalties!r}, but must be one or more numbers "
            "above 0."
        )


def _folders(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the folders of data and output."""
    for key, folder in (("data-dir", settings.data_dir), ("output-dir", settings.output_dir)):
        if folder and not Path(folder).is_absolute():
            tilde = ", and `~` is not expanded" if folder.startswith("~") else ""
            yield (
                f"{key!r} is {folder!r}, but must be an absolute path: the server does not run in "
                f"the folder that you start it from{tilde}."
            )
    if settings.resume and not settings.output_dir:
        yield (
            "'resume' is true, but 'output-dir' is empty: set it to the folder of the run to go "
            "on with."
        )
