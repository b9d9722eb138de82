"""Load the Flower app of a folder: the two objects and the settings that pyproject.toml names."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from flwr.app import Context, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from flower_ist.errors import FlowerIstError
from flower_ist.grids.inprocess import RUN_ID, SERVER_NODE_ID, InProcessGrid

_Component = TypeVar("_Component", ServerApp, ClientApp)


class AppError(FlowerIstError):
    """A folder holds no Flower app that can be loaded."""


@dataclass(frozen=True)
class App:
    """A Flower app: its two halves and the settings of its pyproject.toml."""

    server_app: ServerApp
    client_app: ClientApp
    config: UserConfig


def load_app(folder: Path) -> App:
    """Load the Flower app of a folder, as ``flwr run`` finds it: from its pyproject.toml.

    The two objects are those of ``[tool.flwr.app.components]``; ``[tool.flwr.app.config]`` gives
    the run config, nested tables as keys with dots. The folder is on ``sys.path`` meanwhile. What
    is imported stays imported, so a process can hold one app of each module name.

        app = load_app(Path("."))
        run_in_process(app.server_app, app.client_app, 4, {**app.config, "num-rounds": 3})

    Raises:
        AppError: with one sentence, if anything is missing or cannot be imported.
    """
    folder = folder.absolute()
    file = folder / "pyproject.toml"
    try:
        content: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        raise AppError(f"There is no Flower app in {folder}: {file} cannot be read.") from err
    except tomllib.TOMLDecodeError as err:
        raise AppError(f"{file} is not valid TOML: {err}.") from err
    tables: dict[str, dict[str, Any]] = {}
    for name in ("components", "config"):
        table = content
        for key in ("tool", "flwr", "app", name):
            table = table.get(key, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            raise AppError(f"{file}: [tool.flwr.app.{name}] is not a table.")
        tables[name] = table
    config = _flat(tables["config"], "", file)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        server_app = _component(folder, tables["components"], "serverapp", ServerApp)
        client_app = _component(folder, tables["components"], "clientapp", ClientApp)
    finally:
        sys.path.remove(str(folder))
    return App(server_app, client_app, config)


def _component(
    folder: Path, components: Mapping[str, Any], key: str, kind: type[_Component]
) -> _Component:
    """Import the object that a component's reference ``module:attribute`` names."""
    reference = components.get(key)
    where = f"{key!r} in [tool.flwr.app.components] of {folder / 'pyproject.toml'}"
    if reference is None:
        raise AppError(f"{where} is missing.")
    module_name, _, attributes = str(reference).partition(":")
    if not module_name or not attributes:
        raise AppError(f"{where} is {reference!r}, but must be like 'package.module:app'.")
    _refuse_other_folder(folder, module_name.partition(".")[0])
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except Exception as err:  # an app's module may raise anything
        reason = " ".join(f"{type(err).__name__}: {err}".split()).rstrip(".")
        raise AppError(f"{where} is {reference!r}, which cannot be loaded: {reason}.") from err
    if not isinstance(found, kind):
        raise AppError(f"{where} is {reference!r}, which is no {kind.__name__}.")
    return found


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


def _flat(table: Mapping[str, Any], prefix: str, file: Path) -> UserConfig:
    """Return nested settings under keys with dots, as Flower hands them to the apps."""
    flat: UserConfig = {}
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


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    num_clients: int,
    run_config: Mapping[str, bool | float | int | str],
    node_configs: Sequence[UserConfig] | None = None,
) -> None:
    """Run both apps in this process with a complete run config.

    An exception of the ServerApp is raised here.
    """
    grid = InProcessGrid(client_app, num_clients, dict(run_config), node_configs)
    context = Context(
        run_id=RUN_ID,
        node_id=SERVER_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config),
    )
    server_app(grid, context)
