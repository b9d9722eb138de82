"""A plan as options of the command line: read, written and compared."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from flower_ist.compare.plan import KEY, QUESTIONS, Plan, PlanError, value_text
from flower_ist.compare.usage import Value
from flower_ist.differences import differences

# A run is the same whatever is asked: another question in the same folder needs only what is new.
_QUESTIONS = {name: f"--{name.replace('_', '-')}" for name in QUESTIONS}


def parse_value(text: str) -> Value:
    """Read a value as it is written in TOML: ``true``, ``3``, ``0.5``; else it is a text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_settings(pairs: Sequence[str]) -> dict[str, Value]:
    """Read ``key=value`` pairs.

    Raises:
        PlanError: one has no ``=``, or a key is not in kebab-case, or is there twice.
    """
    return {key: parse_value(text) for key, text in _split(pairs).items()}


def parse_sweep(pairs: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """Read ``key=value,value,...`` pairs; the errors are those of :func:`parse_settings`."""
    return {
        key: tuple(parse_value(part) for part in text.split(","))
        for key, text in _split(pairs).items()
    }


def parse_capacity(text: str) -> tuple[float, ...]:
    """Read ``0.5,0.25``; an empty text is an empty tuple.

    Raises:
        PlanError: a part is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise PlanError(
            f"--capacity must be numbers with commas between them, not {text!r}."
        ) from None


def parse_size(option: str, text: str) -> int:
    """Read ``2MB``, ``500 kB``, ``1.5e6`` or ``2 MiB``: a number of bytes, at least 1.

    Raises:
        PlanError: it is not one.
    """
    from pydantic import ByteSize, TypeAdapter

    try:
        size = int(float(text))
    except (ValueError, OverflowError):
        try:
            size = int(TypeAdapter(ByteSize).validate_python(text))
        except ValueError:
            size = 0
    if size < 1:
        raise PlanError(f"{option} is {text!r}, but must be bytes, such as 2MB, 500kB or 1.5e6.")
    return size


def command_of(plan: Plan) -> str:
    """Return the command that repeats a comparison into a new folder."""
    words = ["flower-ist", "compare"]
    for name, value in _options(plan).items():
        option, _, key = name.partition(" ")
        words += [option, f"{key}={value}" if key else value]
    return shlex.join([*words, "--out", "NEW"])


def extended(stored: Plan, given: Plan) -> Plan:
    """Return a plan with the strategies and seeds of both; ``given`` has the last word.

    Raises:
        PlanError: they differ in something else, so their runs cannot be compared.
    """
    free = frozenset({"--strategies", "--seeds", "--target-accuracy", *_QUESTIONS.values()})
    there, here = (
        {**_options(plan), "tokens with SHA-256": plan.data_sha256[:12]} for plan in (stored, given)
    )
    if differ := differences(there, here, leave_out=free):
        raise PlanError(
            f"The folder holds a comparison with other options ({differ}): choose another output "
            "folder."
        )
    names = tuple(dict.fromkeys((*stored.strategies, *given.strategies)))
    return replace(given, strategies=names, seeds=max(stored.seeds, given.seeds))


def _options(plan: Plan) -> dict[str, str]:
    """Return option -> value as on the command line, with ``--set KEY`` for a setting."""
    options = {"--app": plan.app, "--data": plan.data, "--strategies": ",".join(plan.strategies)}
    for name in ("clients", "rounds", "seeds", "engine"):
        options[f"--{name}"] = str(getattr(plan, name))
    for name, option in _QUESTIONS.items():
        options[option] = str(getattr(plan, name) or "")
    options["--capacity"] = ",".join(map(str, plan.capacity))
    options["--target-accuracy"] = "" if plan.target_accuracy is None else str(plan.target_accuracy)
    given = {name: text for name, text in options.items() if text}
    for key, value in plan.settings.items():
        given[f"--set {key}"] = value_text(value)
    for key, values in plan.sweep.items():
        given[f"--sweep {key}"] = ",".join(map(value_text, values))
    return given


def _split(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not KEY.fullmatch(key) or key in found:
            raise PlanError(f"{pair!r} is not one new setting: write key=value, each key once.")
        found[key] = text
    return found
