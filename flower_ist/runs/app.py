"""Load the Flower app in a folder: the two objects and the settings in its pyproject.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from flwr.app import Context, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from flower_ist.grids.inprocess import RUN_ID, SERVER_NODE_ID, InProcessGrid
from flower_ist.runs.app_import import AppError, app_tables, import_from

_Component = TypeVar("_Component", ServerApp, ClientApp)


@dataclass(frozen=True)
class App:
    """A Flower app: its two halves and the settings of its pyproject.toml."""

    server_app: ServerApp
    client_app: ClientApp
    config: UserConfig


def load_app(folder: Path) -> App:
    """Load the Flower app in a folder from its pyproject.toml, as ``flwr run`` does.

    The two objects are those of ``[tool.flwr.app.components]``; ``[tool.flwr.app.config]`` gives
    the run config, with nested tables as dotted keys.

        app = load_app(Path("."))
        run_in_process(app.server_app, app.client_app, 4, {**app.config, "num-rounds": 3})

    Raises:
        AppError: with one sentence, if anything is missing or cannot be imported.
    """
    folder = folder.absolute()
    components, config = app_tables(folder)
    server_app = _component(folder, components, "serverapp", ServerApp)
    client_app = _component(folder, components, "clientapp", ClientApp)
    return App(server_app, client_app, config)


def _component(
    folder: Path, components: Mapping[str, Any], key: str, kind: type[_Component]
) -> _Component:
    """Import the object to which a component's reference ``module:attribute`` points."""
    reference = components.get(key)
    where = f"{key!r} in [tool.flwr.app.components] of {folder / 'pyproject.toml'}"
    if reference is None:
        raise AppError(f"{where} is missing.")
    module_name, _, attributes = str(reference).partition(":")
    if not module_name or not attributes:
        raise AppError(f"{where} is {reference!r}, but must be like 'package.module:app'.")
    try:
        found: Any = import_from(folder, module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except AppError:
        raise
    except Exception as err:  # an app's module may raise anything
        reason = " ".join(f"{type(err).__name__}: {err}".split()).rstrip(".")
        raise AppError(f"{where} is {reference!r}, which cannot be loaded: {reason}.") from err
    if not isinstance(found, kind):
        raise AppError(f"{where} is {reference!r}, which is no {kind.__name__}.")
    return found


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    num_clients: int,
    run_config: Mapping[str, bool | float | int | str],
) -> None:
    """Run both apps in this process with a complete run config.

    An exception in the ServerApp is raised here.
    """
    grid = InProcessGrid(client_app, num_clients, dict(run_config))
    context = Context(
        run_id=RUN_ID,
        node_id=SERVER_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config),
    )
    server_app(grid, context)
