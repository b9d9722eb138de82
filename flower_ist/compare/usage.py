"""Which strategy uses which setting, so that a sweep varies for each what it can tell apart.

The app that is compared says so: beside its ServerApp, or in the package that its pyproject.toml
names, it has a module ``usage`` with a function of that name. What a strategy does not use the app
refuses or passes over; here both are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flower_ist.runs.app_import import AppError, app_tables, import_from, own_package

Value = bool | int | float | str

OPTIONS_KEY = "strategy-options"


@dataclass(frozen=True)
class Usage:
    """What an app says of its strategies and settings.

    Attributes:
        config: its own run config.
        package: where its modules ``usage`` and ``settings`` are.
        strategies: all names.
        applies_to: key -> the strategies to which it makes a difference.
        also_with: key -> another one; where that is on, the first matters to all that the other
            applies to.
        options: strategy -> the names that it understands in the setting ``strategy-options``.
    """

    config: Mapping[str, Value]
    package: str
    strategies: Collection[str]
    applies_to: Mapping[str, Collection[str]]
    also_with: Mapping[str, str]
    options: Mapping[str, Collection[str]]

    def uses(self, strategy: str, key: str, values: Mapping[str, Collection[Value]]) -> bool:
        """Return whether a setting makes a difference to a strategy.

        Args:
            strategy: a name of the app.
            key: the setting, in kebab-case. Of one that the app does not have nothing is known.
            values: those that the plan has for other settings, set or swept; the others are off.
        """
        other = self.also_with.get(key, "")
        if other and any(values.get(other, ())) and self.uses(strategy, other, values):
            return True
        return strategy in self.applies_to.get(key, self.strategies)

    def own_options(self, strategy: str, text: Value) -> str:
        """Return what a strategy understands of the setting ``strategy-options``."""
        known = self.options.get(strategy, ())
        return " ".join(part for part in str(text).split() if part.partition("=")[0] in known)


@cache
def usage_of(app: Path) -> Usage:
    """Ask the app in a folder.

    Raises:
        AppError: it does not say, or there is none.
    """
    _, config = app_tables(app)
    package = own_package(app)
    try:
        told = import_from(app, f"{package}.usage").usage()
    except ModuleNotFoundError as err:
        raise AppError(
            f"The app in {app} does not say what its strategies use: {package}/usage.py is missing."
        ) from err
    return Usage(
        config=config,
        package=package,
        strategies=tuple(told["strategies"]),
        applies_to={key: frozenset(facts["applies_to"]) for key, facts in told["keys"].items()},
        also_with={key: facts["also_with"] for key, facts in told["keys"].items()},
        options={name: frozenset(names) for name, names in told["options"].items()},
    )
