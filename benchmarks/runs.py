"""Runs of the real apps in this process, for the benchmarks."""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path
from typing import Any

import torch

from client_app.app import app as client_app
from flower_ist.inprocess import run_in_process
from flower_ist.runlog import read_run
from server_app.app import app as server_app

ROOT = Path(__file__).parent.parent


def quiet_run(folder: Path, *, num_clients: int = 4, **changes: Any) -> list[dict[str, Any]]:
    """Run both apps with pyproject's settings and some changes; return the run log's rounds."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    config = {
        **content["tool"]["flwr"]["app"]["config"],
        "node-timeout": 0.0,
        "output-dir": str(folder / "run"),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    run_in_process(server_app, client_app, num_clients, config)
    return read_run(folder / "run")
