"""Tell Flower's own commands where a deployment's SuperLink is."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from flower_ist.deploy.plan import DeployError
from flower_ist.files import make_folder, write_file


def config_file() -> Path:
    """Return Flower's config file: in ``$FLWR_HOME``, or in ``~/.flwr``."""
    return Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr") / "config.toml"


def connect(folder: Path, config: Path) -> bool:
    """Add a deployment's connection to Flower's config file, once.

    Args:
        folder: that ``flower-ist deploy init`` wrote.
        config: Flower's config file; it need not exist.

    Returns:
        Whether the file was changed; if not, the connection is in it already.

    Raises:
        DeployError: the file is damaged, or has another connection of that name.
        NotWrittenError: the file cannot be written.
    """
    try:
        addition = (folder / "connection.toml").read_text(encoding="utf-8")
        ((name, wanted),) = tomllib.loads(addition)["superlink"].items()
    except (OSError, ValueError, KeyError) as err:
        raise DeployError(
            f"{folder} holds no connection ({err}): give the folder that 'flower-ist deploy init' "
            "wrote."
        ) from err
    before = config.read_text(encoding="utf-8") if config.exists() else ""
    try:
        present = tomllib.loads(before).get("superlink", {}).get(name)
    except tomllib.TOMLDecodeError as err:
        raise DeployError(
            f"Flower cannot read {config} ({err}). If a section [superlink.{name}] is in it twice, "
            "remove one of the two, and try again."
        ) from err
    if present == wanted:
        return False
    if present is not None:
        raise DeployError(
            f"{config} has another connection {name!r}, to {present.get('address')}: remove its "
            f"section [superlink.{name}], or give this deployment another --name."
        )
    make_folder(config.parent)
    write_file(config, before + addition)
    return True
