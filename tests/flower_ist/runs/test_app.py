"""Loading a Flower app from its folder: what is found, and one sentence for what is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from flwr.app import UserConfig

from flower_ist.runs.app import App, AppError, load_app, run_in_process
from tests.fakes import ROOT

_names = count()


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    """Leave neither modules nor paths of a test's app behind."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - modules:
        if name.startswith("tiny_app_"):
            del sys.modules[name]


SERVER = """
from flwr.serverapp import ServerApp
from {package} import notes
app = ServerApp()

@app.main()
def main(grid, context):
    notes.append((len(list(grid.get_node_ids())), dict(context.run_config)))
"""
CLIENT = """
from flwr.clientapp import ClientApp

class Holder:
    app = ClientApp()
"""


def write_app(
    folder: Path,
    *,
    package: str = "",
    serverapp: str = "{}.server:app",
    clientapp: str = "{}.client:Holder.app",
    config: str = "",
) -> str:
    """Write an app whose package name no other test has; return the name."""
    package = package or f"tiny_app_{next(_names)}"
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("notes = []\n")
    (folder / package / "server.py").write_text(SERVER.format(package=package))
    (folder / package / "client.py").write_text(CLIENT)
    (folder / "pyproject.toml").write_text(
        "[tool.flwr.app.components]\n"
        f'serverapp = "{serverapp.format(package)}"\n'
        f'clientapp = "{clientapp.format(package)}"\n'
        f"[tool.flwr.app.config]\n{config}\n"
    )
    return package


def refusal(folder: Path) -> str:
    with pytest.raises(AppError) as caught:
        load_app(folder)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def test_an_app_of_any_folder_runs_here(tmp_path, monkeypatch):
    package = write_app(tmp_path, config="rounds = 3\nmodel.width = 8\nmodel.name = 'a'")
    monkeypatch.chdir(tmp_path.parent)
    app = load_app(Path(tmp_path.name))
    expected: UserConfig = {"rounds": 3, "model.width": 8, "model.name": "a"}
    assert app.config == expected
    run_in_process(app.server_app, app.client_app, 5, {**app.config, "rounds": 1})
    assert sys.modules[package].notes == [(5, {**expected, "rounds": 1})]
    # Again: the same objects, as an import gives them.
    assert load_app(tmp_path) == App(app.server_app, app.client_app, app.config)


def test_the_app_of_this_project(default_run_config):
    from client_app.app import app as client_app
    from server_app.app import app as server_app

    assert load_app(ROOT) == App(server_app, client_app, default_run_config)


def test_a_config_is_not_needed(tmp_path):
    package = write_app(tmp_path)
    file = tmp_path / "pyproject.toml"
    file.write_text(file.read_text().replace("[tool.flwr.app.config]", ""))
    assert load_app(tmp_path).config == {}
    assert package in sys.modules


def test_two_apps_of_one_module_name_are_refused(tmp_path):
    package = write_app(tmp_path / "a")
    write_app(tmp_path / "b", package=package)
    load_app(tmp_path / "a")
    text = refusal(tmp_path / "b")
    assert f"{package!r} of {tmp_path / 'b'} cannot be loaded: another module of that name" in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"serverapp": "{}.server"}, "but must be like 'package.module:app'"),
        ({"clientapp": ":app"}, "'clientapp' in [tool.flwr.app.components] of"),
        ({"serverapp": "{}.absent:app"}, "cannot be loaded: ModuleNotFoundError: No module named"),
        ({"clientapp": "{}.client:Holder.b"}, "AttributeError: type object 'Holder' has no"),
        ({"serverapp": "{}.client:Holder.app"}, "which is no ServerApp"),
        ({"clientapp": "{}.server:app"}, "which is no ClientApp"),
        ({"config": "a = [1]"}, "the setting 'a' is [1], but must be a text, a number, true or"),
        ({"config": "[tool.flwr.app.config.b]\nc = 2020-01-01"}, "the setting 'b.c' is"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_a_sentence(tmp_path, changes, text):
    write_app(tmp_path, **changes)
    assert text in refusal(tmp_path)


def test_a_module_that_raises_is_named(tmp_path):
    package = write_app(tmp_path)
    (tmp_path / package / "server.py").write_text("raise OSError('two\\nlines.')\n")
    assert refusal(tmp_path).endswith("which cannot be loaded: OSError: two lines.")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "There is no Flower app in"),
        (b"\xff", "pyproject.toml cannot be read"),
        (b"a =", "pyproject.toml is not valid TOML: "),
        (b"[project]\nname = 'a'", "'serverapp' in [tool.flwr.app.components] of"),
        (b"[tool.flwr.app]\ncomponents = 'a'", "[tool.flwr.app.components] is not a table"),
        (b"[tool]\nflwr = 1", "[tool.flwr.app.components] is not a table"),
        (b"[tool.flwr.app]\nconfig = 1", "[tool.flwr.app.config] is not a table"),
    ],
)
def test_a_folder_without_an_app_is_refused_with_a_sentence(tmp_path, content, text):
    if content is not None:
        (tmp_path / "pyproject.toml").write_bytes(content)
    assert text in refusal(tmp_path)
