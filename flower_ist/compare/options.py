"""The command line's options, read and written."""

from __future__ import annotations

import shlex
from collections.abc import Container, Sequence

from flower_ist.compare.plan import KEY, Plan, PlanError, value_text
from flower_ist.compare.usage import Value


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


def command_of(plan: Plan) -> str:
    """Return the command that repeats a comparison into a new folder."""
    words = ["flower-ist", "compare", "--app", plan.app]
    words += ["--data", plan.data] if plan.data else []
    words += ["--strategies", ",".join(plan.strategies)]
    for name in ("clients", "rounds", "seeds", "engine"):
        words += [f"--{name}", str(getattr(plan, name))]
    for key, value in plan.settings.items():
        words += ["--set", f"{key}={value_text(value)}"]
    for key, values in plan.sweep.items():
        words += ["--sweep", f"{key}={','.join(map(value_text, values))}"]
    if plan.capacity:
        words += ["--capacity", ",".join(map(str, plan.capacity))]
    if plan.target_accuracy is not None:
        words += ["--target-accuracy", str(plan.target_accuracy)]
    return shlex.join([*words, "--out", "NEW"])


def one_value_each(arguments: Sequence[str], options: Container[str]) -> list[str]:
    """Return arguments in which ``--sweep A B`` is written out as ``--sweep A --sweep B``."""
    written: list[str] = []
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in options else ""
        elif option and written[-1] != option:
            written.append(option)
        written.append(argument)
    return written


def _split(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not KEY.fullmatch(key) or key in found:
            raise PlanError(f"{pair!r} is not one new setting: write key=value, each key once.")
        found[key] = text
    return found
