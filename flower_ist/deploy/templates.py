"""The text files of a deployment, filled in from ``templates/``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from string import Template


class _AtTemplate(Template):
    """``@{name}`` is replaced and ```` is an at-sign: shell scripts keep their dollars."""

    delimiter = "@"


def fill(name: str, values: Mapping[str, str]) -> bytes:
    """Return a template with its values.

    Args:
        name: path below ``templates/``.
        values: for all of its ``@{...}``.
    """
    text = (files("flower_ist.deploy") / "templates" / name).read_text(encoding="utf-8")
    return _AtTemplate(text).substitute(values).encode()
