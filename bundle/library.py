"""Importing this checks that the library on this machine is the one that the run was made for."""

from __future__ import annotations

import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


class LibraryError(ImportError):
    """The flower-ist that is installed on this machine cannot serve the run."""


def check_library(pyproject: Path = PYPROJECT) -> None:
    """Compare the first two numbers of the versions: a third one changes nothing that is sent.

    Raises:
        LibraryError: the library is missing or of another version, with the command that helps.
    """
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    version: str = content["project"]["version"]
    series = version.rpartition(".")[0]
    try:
        from flower_ist.version import __version__ as found
    except ImportError:
        found = "none"
    if found.rpartition(".")[0] != series:
        raise LibraryError(
            f"This run was started with flower-ist {version}, and this machine has {found}: on the "
            f"server and on every device, pip install 'flower-ist=={series}.*'."
        )


check_library()
