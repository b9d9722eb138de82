"""What is wrong with a run config, as one sentence: the key, its value, and what would do."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from flower_ist.errors import FlowerIstError
from server_app.fields import bounds_of, extra_of, kebab

_OPTIONS = "set 'strategy-options', e.g. {}"
# Keys of earlier run configs, and what takes their place.
REMOVED_KEYS = {
    "steps-schedule": "set 'local-steps' or 'local-epochs', which hold for all rounds",
    "slices-schedule": "set 'num-slices', which holds for all rounds",
    "final-learning-rate": "set 'learning-rate', which holds for all rounds",
    **dict.fromkeys(
        ("submodel-optimizer", "submodel-optimiser"),
        "leave it out, for sub-models take a round's change as it is; fedavgm, fedadam and fedyogi "
        "have an optimizer on the server",
    ),
    "average-rounds": "leave it out, for the last round's model is evaluated and written",
    "standardise": "set 'standardize'",
    **dict.fromkeys(
        ("ridge-blend", "ridge-skip"), "set 'lda-skip': the closed-form head is inside the net now"
    ),
    "max-examples": "leave it out; 'claim-bound' says for how many examples a client may count",
    "packed": "leave it out, for every model travels packed",
    "shares": "set 'capacities', the share of the neurons that each client can hold",
    "proximal-mu": _OPTIONS.format("proximal-mu=0.01"),
    "server-learning-rate": _OPTIONS.format(
        "server-learning-rate=0.5 for fedavgm, or eta=0.03 for fedadam and fedyogi"
    ),
    "server-momentum": _OPTIONS.format("server-momentum=0.5"),
    "trimmed-share": (
        "set 'merge-rule', e.g. trimmed-mean:0.25, or 'strategy-options', e.g. beta=0.25 for "
        "fedtrimmedavg"
    ),
    "quarantine-after": _OPTIONS.format("quarantine-after=3"),
    "quarantine-rounds": _OPTIONS.format("quarantine-rounds=10"),
    "wire-dtype-down": "set 'wire-dtype', e.g. int8, or int8:int4 for down and up",
    "wire-dtype-up": "set 'wire-dtype', e.g. int8, or int8:int4 for down and up",
}
_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
}


class SettingsError(FlowerIstError):
    """A setting is missing or invalid; the message names its key."""


def sentence_of(err: ValidationError, fields: Mapping[str, FieldInfo]) -> str:
    """Return the first fault that pydantic found as one sentence.

    Args:
        err: of pydantic.
        fields: of the model, by name.
    """
    fault = err.errors(include_url=False)[0]
    found = fault.get("ctx", {}).get("error", fault["msg"])
    if not fault["loc"]:
        return str(found)  # of a rule between keys, which is a sentence
    key = str(fault["loc"][0])
    field = next(field for name, field in fields.items() if kebab(name) == key)
    kind = fault["type"]
    if kind in _TYPES:
        needed = _TYPES[kind]
    elif kind == "value_error":
        needed = str(found)
    else:
        finite = "finite and " if kind == "finite_number" else ""
        needed = f"{finite}{bounds_of(field)}{extra_of(field)['hint']}"
    return f"{key!r} is {fault['input']!r}, but must be {needed}."
