"""One setting as a field of a pydantic model: kinds of text, bounds, and who uses it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic.fields import FieldInfo

from flower_ist.wire.quantize import CODECS
from server_app.strategies import STRATEGIES

_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def setting(
    default: bool | int | float | str,
    meaning: str,
    applies_to: Collection[str] = STRATEGIES,
    *,
    also_with: str = "",
    hint: str = "",
    **bounds: float,
) -> Any:
    """Return one field of the model.

    Args:
        default: what pyproject.toml has too.
        meaning: what the key does; one or more sentences in Markdown.
        applies_to: the strategies to which it makes a difference.
        also_with: another key; where that is on, this one matters to all that the other applies to.
        hint: ends the sentence about a value that is out of bounds.
        bounds: ``ge``, ``gt``, ``le``, ``lt``.
    """
    extra: Any = {"applies_to": list(applies_to), "also_with": also_with, "hint": hint}
    limits: Any = bounds
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


def kebab(name: str) -> str:
    """Return a field's name as the run config has it."""
    return name.replace("_", "-")


def bounds_of(field: FieldInfo) -> str:
    """Return the bounds of a number: ``above 0 and at most 1``; an empty string without any."""
    return " and ".join(
        f"{words} {getattr(bound, name):g}"
        for bound in field.metadata
        for name, words in _BOUNDS.items()
        if hasattr(bound, name)
    )


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """Return what :func:`server_app.settings.setting` keeps with a field."""
    assert isinstance(field.json_schema_extra, dict)
    return dict(field.json_schema_extra)


def numbers(text: str) -> list[float]:
    """Return the numbers in a comma-separated string; none for an empty one."""
    return [float(number) for number in text.split(",")] if text else []


# A validator's error goes on after "must be": see server_app/settings_error.py.
def _one_of(choices: Sequence[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in choices:
            raise ValueError(f"one of: {', '.join(choices)}")
        return name

    return AfterValidator(check)


def _wire_dtype(text: str) -> str:
    down, colon, up = text.partition(":")
    if not {down, up if colon else down} <= set(CODECS):
        raise ValueError(f"one of: {', '.join(CODECS)}; or two for down and up, as int8:int4")
    return text


def _are_numbers(text: str) -> str:
    try:
        numbers(text)
    except ValueError:
        raise ValueError("numbers with commas between them") from None
    return text


def _is_absolute(path: str) -> str:
    if path and not Path(path).is_absolute():
        tilde = ", and `~` is not expanded" if path.startswith("~") else ""
        raise ValueError(
            f"an absolute path: the server does not run in the folder that you start it from{tilde}"
        )
    return path


def _bound(times: float) -> float:
    if times != 0 and times < 1:
        raise ValueError("at least 1, or 0 for no bound")
    return times


Strategy = Annotated[str, _one_of(STRATEGIES)]
Cut = Annotated[str, _one_of(("alternate", "all"))]
WireDtype = Annotated[str, AfterValidator(_wire_dtype)]
Numbers = Annotated[str, AfterValidator(_are_numbers)]
Bound = Annotated[float, AfterValidator(_bound)]
Folder = Annotated[str, AfterValidator(_is_absolute)]
