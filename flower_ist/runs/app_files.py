"""A Flower app's own files, apart from everything else that lies in its folder.

``flwr run FOLDER`` resolves the path of every file below FOLDER before it picks the few hundred
that it bundles. In a checkout with a virtual environment these are tens of thousands: seconds of a
core for every run, and minutes where the core or the disk is busy. From a copy that holds only what
can be bundled it makes the same bundle at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

# What Flower bundles, and the file that it asks what to leave out.
_SUFFIXES = {".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl"}
_NAMES = {"LICENSE", ".gitignore"}


def copy_app(app: Path, folder: Path) -> Path:
    """Copy the files of an app that Flower may bundle, and return where they are.

    Left out are hidden folders, ``__pycache__``, virtual environments, symbolic links (Flower
    bundles none) and files of other kinds. ``fab-include`` and ``.gitignore`` then do their part as
    they do in the app's folder.

    Args:
        app: the app's folder.
        folder: the copy; it may be there and empty.

    Raises:
        OSError: a file cannot be read or written.
    """
    shutil.copytree(app, folder, ignore=_left_out, dirs_exist_ok=True)
    return folder


def _left_out(folder: str, names: Sequence[str]) -> set[str]:
    return {name for name in names if not _is_wanted(Path(folder) / name)}


def _is_wanted(path: Path) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        hidden = path.name.startswith(".") or path.name == "__pycache__"
        return not hidden and not (path / "pyvenv.cfg").exists()
    return path.suffix in _SUFFIXES or path.name in _NAMES
