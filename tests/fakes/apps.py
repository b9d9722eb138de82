"""Both halves of the app, run whole in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from server_app.app import app as server_app


def run_app(config: dict[str, Any], num_clients: int = 4) -> Path:
    """Return the run's folder."""
    run_in_process(server_app, client_app, num_clients, config)
    return Path(config["output-dir"])


def run_and_read(
    config: dict[str, Any], num_clients: int = 4
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Return the lines of the run's log, and its model."""
    folder = run_app(config, num_clients)
    return read_run(folder), load_file(folder / "model.safetensors")
