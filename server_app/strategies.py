"""The strategies by name, and the options that only some of their constructors take.

Options are set by ``strategy-options``, under the constructor's own keywords in kebab-case:
``proximal-mu=0.1``, or ``server-learning-rate=0.5 server-momentum=0.9``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from flower_ist.errors import ArgumentError
from flower_ist.submodels.schemes import SCHEMES

SUBMODELS = tuple(SCHEMES)
SLICED = tuple(name for name, scheme in SCHEMES.items() if scheme.disjoint)
CLOSED_FORM = ("ridge", "lda", "ridge-features", "fedncm", "fedcof")
# FedAvg on nets with as few bytes as a slice: the baseline that a sub-model has to beat.
RIVALS = ("fedavg-narrow", "fedavg-features")
FLOWERS = (
    "fedavg",
    *RIVALS,
    "fedprox",
    "fedadam",
    "fedyogi",
    "fedavgm",
    "fedmedian",
    "fedtrimmedavg",
)
TRAINED = (*SUBMODELS, *FLOWERS)
STRATEGIES = (*SUBMODELS, *CLOSED_FORM, *FLOWERS)


class Option(NamedTuple):
    """A number that a constructor takes.

    Attributes:
        default: of this app; a whole number's values are whole numbers.
        below: each value is at least 0 and below this.
    """

    default: float
    below: float = math.inf


# Of Reddi et al., "Adaptive Federated Optimization"; all but eta are Flower's own.
_ADAPTIVE = {
    "eta": Option(0.03),
    "beta-1": Option(0.9, below=1),
    "beta-2": Option(0.99, below=1),
    "tau": Option(1e-3),
}
OPTIONS: Mapping[str, Mapping[str, Option]] = {
    **{name: {"quarantine-after": Option(3), "quarantine-rounds": Option(0)} for name in SUBMODELS},
    "fedprox": {"proximal-mu": Option(0.01)},
    "fedadam": _ADAPTIVE,
    "fedyogi": _ADAPTIVE,
    "fedavgm": {
        "server-learning-rate": Option(1.0),
        "server-momentum": Option(0.5, below=1),
    },
    "fedtrimmedavg": {"beta": Option(0.25, below=0.5)},
}


def parse_options(strategy: str, text: str) -> dict[str, float]:
    """Return all options of a strategy, keyed as its constructor names them.

    Args:
        strategy: whose they are.
        text: the options that differ from this app's defaults: ``name=number``, space-separated.

    Raises:
        ArgumentError: the strategy has no such option, or it cannot be this number.
    """
    known = OPTIONS.get(strategy, {})
    values = {name: option.default for name, option in known.items()}
    for part in text.split():
        name, _, number = part.partition("=")
        if name not in known:
            choices = " ".join(f"{n}={option.default:g}" for n, option in known.items())
            has = f"has these options: {choices}" if known else "has no options: leave it empty"
            raise ArgumentError(f"'strategy-options' is {text!r}, but {strategy!r} {has}.")
        values[name] = _number(part, number, known[name])
    return {name.replace("-", "_"): value for name, value in values.items()}


def _number(part: str, text: str, option: Option) -> float:
    kind = type(option.default)
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < option.below:
        what = "a whole number" if kind is int else "a number"
        below = "" if option.below == math.inf else f" and below {option.below:g}"
        raise ArgumentError(
            f"'strategy-options' has {part!r}, but that must be {what} of at least 0{below}."
        )
    return number
