"""The bundle's check that the library on a machine is the one that the run was made for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bundle.library import LibraryError, check_library
from flower_ist import __version__
from tests.fakes import ROOT


def pyproject(folder: Path, version: str) -> Path:
    file = folder / "pyproject.toml"
    file.write_text(f'[project]\nversion = "{version}"\n')
    return file


@pytest.mark.parametrize("version", ["0.3.0", "0.3.19"])
def test_a_third_number_may_differ(tmp_path, monkeypatch, version):
    monkeypatch.setattr("flower_ist.version.__version__", "0.3.2")
    check_library(pyproject(tmp_path, version))


@pytest.mark.parametrize("found", ["0.2.9", "1.3.2", "0.30.2"])
def test_another_library_is_refused_with_the_command_that_helps(tmp_path, monkeypatch, found):
    monkeypatch.setattr("flower_ist.version.__version__", found)
    with pytest.raises(LibraryError) as caught:
        check_library(pyproject(tmp_path, "0.3.2"))
    assert str(caught.value) == (
        f"This run was started with flower-ist 0.3.2, and this machine has {found}: on the server "
        "and on every device, pip install 'flower-ist==0.3.*'."
    )


@pytest.mark.parametrize("app", ["client", "server"])
def test_without_a_library_both_apps_say_so_before_anything_else_fails(app):
    code = f"import sys; sys.modules['flower_ist'] = None; import bundle.{app}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("bundle.library.LibraryError: This run was started with flower-ist")
    assert "this machine has none" in last


def test_flower_finds_the_apps_without_the_library(tmp_path):
    """An operator's `flwr run` looks for the modules; it need not have what they need."""
    code = (
        "import sys; sys.modules['flower_ist'] = None\n"
        "from flwr.cli.config_utils import load_and_validate\n"
        "from pathlib import Path\n"
        "load_and_validate(Path('pyproject.toml'))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


def test_this_checkout_fits_its_library():
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
    check_library()
