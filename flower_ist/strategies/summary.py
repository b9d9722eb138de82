"""What a sub-model strategy logs of itself before the first round."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from flower_ist.submodels.check import cautions

if TYPE_CHECKING:
    from flower_ist.strategies.submodel import SubmodelStrategy

_log = logging.getLogger("flwr")


def log_summary(strategy: SubmodelStrategy) -> None:
    """Log the settings of a strategy, and what may cost accuracy or bytes."""
    drawn, faults = strategy.assignment, strategy.selection.quarantine.after
    _log.info("\t├──> %s:", strategy.scheme.title)
    _log.info("\t│\t├── Hidden widths: %s", dict(strategy.axes.widths))
    if drawn.capacities is not None:
        _log.info("\t│\t├── Capacities of the clients: %s", list(drawn.capacities))
    else:
        _log.info("\t│\t├── Slices: %s", drawn.num_slices or "as many as clients")
    if parts := drawn.parts():
        low, high = 100 * min(parts), 100 * max(parts)
        whole = sum(int(np.prod(shape)) for shape in strategy.axes.shapes.values())
        _log.info("\t│\t├── A slice: %.2f to %.2f %% of %d weights", low, high, whole)
    _log.info(
        "\t│\t├── Norm bound: %s | quarantine: %s | merge by %s",
        strategy.norm_bound or "none",
        f"after {faults} faults" if faults else "never",
        strategy.merge_rule,
    )
    _log.info("\t│\t└── Seed: %d", drawn.seed)
    for caution in cautions(strategy.axes, drawn.num_slices or 1):
        _log.warning("%s", caution)
    if strategy.fraction_evaluate:
        _log.warning(
            "fraction_evaluate = %g: each client that evaluates is sent the whole model, which "
            "costs more than its slice; evaluate on the server with evaluate_fn instead.",
            strategy.fraction_evaluate,
        )
