"""What of an app's folder is copied for ``flwr run``, and that the bundle is the same."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from flower_ist.runs import launch
from flower_ist.runs.launch import LaunchError, LocalFlower, copy_app

PYPROJECT = """
[project]
name = "an-app"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "someone"
fab-include = ["code/**/*.py", "code/tables/*.json"]

[tool.flwr.app.components]
serverapp = "code.app:server"
clientapp = "code.app:client"
"""
TAKEN = {"code/app.py", "code/tables/a.json", "LICENSE", ".gitignore", "pyproject.toml", "notes.md"}
LEFT = {
    ".venv/lib/a.py",
    ".git/config.json",
    "environment/pyvenv.cfg",
    "environment/lib/a.py",
    "code/__pycache__/app.py",
    "shards/tokens.npy",
    "picture.png",
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    for name in TAKEN | LEFT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "code" / "tables" / "a.json").write_text("{}")
    (folder / "code" / "link.py").symlink_to(folder / "code" / "app.py")
    (folder / "code" / "all").symlink_to(folder / "environment")
    return folder


def test_only_what_can_be_bundled_is_copied(app, tmp_path):
    copy = copy_app(app, tmp_path / "copy")
    found = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert found == TAKEN
    assert not any(path.is_symlink() for path in copy.rglob("*"))


# Flower asks the library that reads its patterns for them by a name that will go.
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_flower_makes_the_same_bundle_of_the_copy(app, tmp_path):
    copy = copy_app(app, tmp_path / "copy")
    bundle = build_fab_from_disk(copy)
    assert bundle == build_fab_from_disk(app)
    names = zipfile.ZipFile(BytesIO(bundle)).namelist()
    assert {"code/app.py", "code/tables/a.json"} <= set(names)


def test_a_simulation_without_ray_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(LaunchError, match=r"needs Ray: pip install 'flower-ist\[simulation\]'\.$"):
        LocalFlower()
    assert LocalFlower(simulation=False).home.exists()
