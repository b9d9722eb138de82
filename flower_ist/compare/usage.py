"""Which strategy uses which setting, so that a sweep varies for each what it can tell apart.

What a strategy does not use the app refuses or passes over; here both are the same. These are names
and no more: this module imports neither flwr nor torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flower_ist.submodels.schemes import SCHEMES

Value = bool | int | float | str

CLOSED_FORM = ("ridge", "fedncm", "fedcof")
STRATEGIES = (
    *SCHEMES,
    *CLOSED_FORM,
    "fedavg",
    "fedprox",
    "fedadam",
    "fedyogi",
    "fedavgm",
    "fedmedian",
    "fedtrimmedavg",
)
"""What the app's setting ``strategy`` may be."""
OVERLAPPING = tuple(scheme.name for scheme in SCHEMES.values() if not scheme.disjoint)
_LINEAR = "fedavg-linear"

_SUBMODELS = set(SCHEMES)
_SLICES = _SUBMODELS - set(OVERLAPPING)
_HIDDEN = {"hidden-width", "hidden-layers"}
# A closed form asks all clients once for sums: it has no net, no steps and nothing to protect.
_TRAINING = {
    *_HIDDEN,
    "batch-size",
    "fraction-train",
    "learning-rate",
    "local-epochs",
    "local-steps",
    "privacy-clip",
    "privacy-noise",
    "replay",
    "ridge-blend",
    "standardize",
    "wire-dtype-down",
    "wire-dtype-up",
}
_ONLY: Mapping[str, Collection[str]] = {
    "close-early": _SLICES,
    "merge-rule": _SUBMODELS,
    "norm-bound": _SUBMODELS,
    "num-slices": _SLICES,
    "packed": _SUBMODELS,
    "proximal-mu": {"fedprox"},
    "quarantine-after": _SUBMODELS,
    "quarantine-rounds": _SUBMODELS,
    "ridge-penalties": {"ridge"},
    "server-learning-rate": {"fedavgm", "fedadam", "fedyogi"},
    "server-momentum": {"fedavgm"},
    "shares": _SLICES,
    "trimmed-share": {"fedtrimmedavg"},
}
# What others use too, beside another setting that they use: which one, and with which of its values
# they do not.
_BESIDE: Mapping[str, tuple[str, Collection[Value]]] = {
    "ridge-penalties": ("ridge-blend", (0,)),
    "trimmed-share": ("merge-rule", ("mean", "median")),
}


def uses(strategy: str, key: str, values: Mapping[str, Collection[Value]]) -> bool:
    """Return whether a setting makes a difference to a strategy.

    Args:
        strategy: a name in a plan.
        key: the setting, in kebab-case.
        values: those that the plan has for other settings, set or swept; the others are off.
    """
    if strategy in CLOSED_FORM and key in _TRAINING:
        return False
    if strategy == _LINEAR and key in _HIDDEN:
        return False
    if key in _BESIDE:
        other, idle = _BESIDE[key]
        if uses(strategy, other, values) and set(values.get(other, ())) - set(idle):
            return True
    return key not in _ONLY or strategy in _ONLY[key]
