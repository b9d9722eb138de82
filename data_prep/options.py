"""Settings whose fields are also the options of a command: type, default, bound and help at once.

:func:`data_prep.commands.common.command_of` makes the command.
"""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from math import inf
from typing import Any

from data_prep import PrepError

ON_ERROR_HELP = "At an image that cannot be read: stop, or skip and list it at the end."


def option(
    text: str,
    default: Any = MISSING,
    *,
    panel: str | None = None,
    flag: str = "",
    least: float | None = None,
) -> Any:
    """Return a dataclass field that is an option.

    Args:
        text: What ``--help`` says of it; only a blank line starts a new line.
        default: Its default; without one the option must be given.
        panel: The heading that it is listed under.
        flag: How it is written, where that is not ``--`` and the field's name.
        least: The least number that :func:`check_bounds` accepts.
    """
    metadata = {"help": text, "panel": panel, "flag": flag, "least": least}
    return field(default=default, metadata=metadata)


def argument(text: str) -> Any:
    """Return a dataclass field that is an argument, given by its position."""
    return field(metadata={"help": text, "argument": True})


def on_error(panel: str | None = None) -> Any:
    """Return the option of every command that reads images."""
    return option(ON_ERROR_HELP, "stop", panel=panel)


def check_bounds(settings: Any) -> None:
    """Refuse a number below its least, or one that is not finite.

    Raises:
        PrepError: with one sentence that names the option.
    """
    for each in fields(settings):
        least, value = each.metadata.get("least"), getattr(settings, each.name)
        if least is not None and not least <= value < inf:
            name = each.name.replace("_", "-")
            raise PrepError(f"--{name} must be at least {least}, not {value}.")
