"""Read a Flower app's pyproject.toml, and import its modules; without flwr or torch."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from flower_ist.errors import FlowerIstError

Config = dict[str, bool | int | float | str]


class AppError(FlowerIstError):
    """A folder does not hold a Flower app that can be loaded."""


def app_tables(folder: Path) -> tuple[dict[str, Any], Config]:
    """Return an app's ``[tool.flwr.app.components]`` and its run config with dotted keys.

    Raises:
        AppError: with one sentence, if there is no app or a table is invalid.
    """
    file, content = folder / "pyproject.toml", _read(folder)
    tables: dict[str, dict[str, Any]] = {}
    for name in ("components", "config"):
        table: Any = content
        for key in ("tool", "flwr", "app", name):
            table = table.get(key, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            raise AppError(f"{file}: [tool.flwr.app.{name}] is not a table.")
        tables[name] = table
    return tables["components"], _flat(tables["config"], "", file)


def own_package(folder: Path) -> str:
    """Return the package with an app's modules ``usage`` and ``settings``.

    It is the ``package`` of the table ``[tool.flower-ist]``, or else the one of the ServerApp.

    Raises:
        AppError: as :func:`app_tables`.
    """
    components, _ = app_tables(folder)
    own = _read(folder).get("tool", {}).get("flower-ist", {})
    named = own.get("package") if isinstance(own, dict) else None
    return str(named or str(components.get("serverapp", "")).partition(":")[0].rpartition(".")[0])


def find_app() -> Path:
    """Return the folder of this project's own app: the checkout, or what the wheel has of it."""
    checkout, package = Path(__file__).absolute().parents[2], Path(__file__).absolute().parents[1]
    return checkout if (checkout / "bundle").is_dir() else package / "app"


def import_from(folder: Path, module_name: str) -> ModuleType:
    """Import a module of an app as ``flwr run`` does, with its folder temporarily on ``sys.path``.

    Imported modules stay imported, so a process can hold one app for each module name.

    Raises:
        AppError: this process has imported a module of that name from elsewhere.
        Exception: whatever the module raises.
    """
    _refuse_other_folder(folder, module_name.partition(".")[0])
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    finally:
        sys.path.remove(str(folder))


def _read(folder: Path) -> dict[str, Any]:
    """Return the content of an app's pyproject.toml."""
    file = folder / "pyproject.toml"
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        raise AppError(f"There is no Flower app in {folder}: {file} cannot be read.") from err
    except tomllib.TOMLDecodeError as err:
        raise AppError(f"{file} is not valid TOML: {err}.") from err


def _refuse_other_folder(folder: Path, name: str) -> None:
    """Refuse a module name that this process has imported from elsewhere: it would be returned."""
    own = {folder / name, folder / f"{name}.py"}
    loaded = sys.modules.get(name)
    if loaded is None or not any(path.exists() for path in own):
        return
    # A package is where its __path__ says; one without __init__.py has no file.
    places = getattr(loaded, "__path__", None) or [getattr(loaded, "__file__", None)]
    found = {Path(place).resolve() for place in places if place}
    if not found & {path.resolve() for path in own}:
        raise AppError(
            f"{name!r} of {folder} cannot be loaded: another module of that name is imported "
            "already; run each app in a process of its own."
        )


def _flat(table: Mapping[str, Any], prefix: str, file: Path) -> Config:
    """Return nested settings under dotted keys, as Flower passes them to the apps."""
    flat: Config = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.", file)
        elif isinstance(value, bool | int | float | str):
            flat[prefix + key] = value
        else:
            raise AppError(
                f"{file}: the setting '{prefix}{key}' is {value!r}, but must be a text, a number, "
                "true or false."
            )
    return flat
