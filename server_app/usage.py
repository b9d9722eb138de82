"""What the settings say of themselves: for ``flower-ist compare``, and for docs/settings.md.

python -m server_app.usage > docs/settings.md
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from pydantic.fields import FieldInfo

from server_app.fields import bounds_of, extra_of, kebab
from server_app.settings import Settings
from server_app.strategies import (
    CLOSED_FORM,
    FLOWERS,
    OPTIONS,
    SLICED,
    STRATEGIES,
    SUBMODELS,
    TRAINED,
)

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
    SLICED: ", ".join(f"`{name}`" for name in SLICED),
    tuple(OPTIONS): "those below",
    ("ridge",): "`ridge`",
}
_INTRODUCTION = """# Settings

Each is a key of `[tool.flwr.app.config]` in `pyproject.toml` and of `flwr run --run-config`. This page is made of
`server_app/settings.py` by `python -m server_app.usage`. Beside the meaning stands who uses a key, if not all do:
sub-models are {submodels}; closed forms {closed}; Flower's own {flowers}.
"""


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


def _lines() -> Iterator[str]:
    yield _INTRODUCTION.format(
        submodels=_listed(SUBMODELS), closed=_listed(CLOSED_FORM), flowers=_listed(FLOWERS)
    ).rstrip()
    for name, field in Settings.model_fields.items():
        key = kebab(name)
        if key in _PARTS:
            yield from ("", f"## {_PARTS[key]}", "", "| key | default | meaning |", "|---|---|---|")
        yield f"| `{key}` | {_shown(field.default)} | {_meaning(field)} |"

    yield from (
        "",
        "## Options of a strategy",
        "",
        "| strategy | `strategy-options` |",
        "|---|---|",
    )
    for strategy, options in OPTIONS.items():
        text = " ".join(f"{name}={option.default:g}" for name, option in options.items())
        yield f"| `{strategy}` | `{text}` |"


def _meaning(field: FieldInfo) -> str:
    extra = extra_of(field)
    users = _GROUPS[tuple(extra["applies_to"])]
    if extra["also_with"]:
        users += f", and others with `{extra['also_with']}`"
    notes = [note for note in (bounds_of(field), users) if note]
    return str(field.description) + (f" ({'; '.join(notes)})" if notes else "")


def _shown(default: bool | int | float | str) -> str:
    if default == "" and isinstance(default, str):
        return "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print(page(), end="")
