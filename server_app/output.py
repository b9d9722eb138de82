"""What a run leaves behind: settings.json, run.jsonl and model.safetensors in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from flower_ist.files import write_durably
from server_app.settings import Settings

SETTINGS_FILE = "settings.json"
MODEL_FILE = "model.safetensors"


def output_folder(settings: Settings, run_id: int) -> Path:
    """Return the absolute folder of a run; a new one in the home folder if none is set."""
    if settings.output_dir:
        return Path(settings.output_dir)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path.home() / "flower-ist-runs" / f"{stamp}-{settings.strategy}-{run_id}"


def write_settings(folder: Path, settings: Settings) -> None:
    """Write the run's settings, whole or not at all.

    Raises:
        NotWrittenError: they cannot be written.
    """
    text = json.dumps(settings.to_run_config(), indent=2) + "\n"
    write_durably(folder / SETTINGS_FILE, text.encode())


def write_model(
    folder: Path, weights: Mapping[str, NDArray[Any]], about: Mapping[str, Any]
) -> Path:
    """Write the model as safetensors, whole or not at all.

    Args:
        folder: of the run.
        weights: name -> array.
        about: what the file's header says of the model, as JSON values.

    Raises:
        NotWrittenError: it cannot be written; the model that was there is unchanged.
    """
    header = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()
    }
    # safetensors takes an array's memory as it lies: in another order it would write wrong numbers.
    ordered = {name: np.asarray(weight, order="C") for name, weight in weights.items()}
    write_durably(folder / MODEL_FILE, save(ordered, metadata=header))
    return folder / MODEL_FILE
