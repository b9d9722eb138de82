"""A description of the settings, for ``flower-ist compare`` and for docs/settings.md.

python -m server_app.usage > docs/settings.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from pydantic.fields import FieldInfo

from server_app.fields import bounds_of, extra_of, kebab
from server_app.settings import Settings
from server_app.strategies import (
    CLOSED_FORM,
    FLOWERS,
    OPTIONS,
    STRATEGIES,
    SUBMODELS,
    TRAINED,
)


def usage() -> dict[str, Any]:
    """Return which strategy uses what, as JSON values.

    ``strategies`` has all names, ``keys`` each key's ``applies_to`` and ``also_with``
    (:func:`server_app.fields.setting`), and ``options`` the names of each strategy's options.
    """
    return {
        "strategies": list(STRATEGIES),
        "keys": {kebab(name): extra_of(field) for name, field in Settings.model_fields.items()},
        "options": {name: list(options) for name, options in OPTIONS.items()},
    }


def page() -> str:
    """Return docs/settings.md."""
    return "\n".join(_lines()) + "\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_INTRODUCTION = f"""# Settings

Each is a key of `[tool.flwr.app.config]` in `pyproject.toml` and of `flwr run --run-config`.
This page is `server_app/settings.py` as `python -m server_app.usage` writes it.

A key is for all strategies, or for those that stand behind its meaning. Sub-models are
{_listed(SUBMODELS)}; closed forms are
{_listed(CLOSED_FORM)}; Flower's own are
{_listed(FLOWERS)}."""
_OPTIONS = """A constructor's arguments by name, e.g. `strategy-options="eta=0.01 tau=0.1"`.
`quarantine-after` is the number of faulty replies in a row after which a client is asked no more
(0: never), for `quarantine-rounds` rounds (0: the rest of the run). The others are Flower's."""
# The first key of each part of the page.
_PARTS = {
    "strategy": "The strategy",
    "hidden-width": "The model and its training",
    "wire-dtype": "Bytes and privacy",
    "merge-rule": "Faulty and hostile clients",
    "fraction-train": "Clients and time",
    "data-dir": "Data, evaluation and output",
}
_GROUPS = {
    STRATEGIES: "",
    TRAINED: "all but closed forms",
    SUBMODELS: "sub-models",
    tuple(OPTIONS): "those below",
}


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    for name, field in Settings.model_fields.items():
        if kebab(name) in _PARTS:
            yield from ("", f"## {_PARTS[kebab(name)]}", "")
            yield from ("| key | default | meaning |", "|---|---|---|")
        yield f"| `{kebab(name)}` | {_shown(field.default)} | {_meaning(field)} |"
    yield from ("", "## Options of a strategy", "", _OPTIONS, "")
    yield from ("| strategy | `strategy-options` |", "|---|---|")
    for options, strategies in groupby(OPTIONS, OPTIONS.__getitem__):
        text = " ".join(f"{name}={option.default:g}" for name, option in options.items())
        yield f"| {_listed(strategies)} | `{text}` |"


def _meaning(field: FieldInfo) -> str:
    extra = extra_of(field)
    strategies = tuple(extra["applies_to"])
    users = _GROUPS.get(strategies, _listed(strategies))
    if extra["also_with"]:
        users += f", and others with `{extra['also_with']}`"
    notes = "; ".join(filter(None, (bounds_of(field), users)))
    return f"{field.description} ({notes})" if notes else str(field.description)


def _shown(default: bool | int | float | str) -> str:
    if isinstance(default, str):
        return f"`{default}`" if default else "empty"
    return f"`{str(default).lower()}`"


if __name__ == "__main__":
    sys.stdout.write(page())
