"""In-process runs of the real apps, for the benchmarks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from flower_ist.runs.app import load_app, run_in_process
from flower_ist.runs.log import read_run

ROOT = Path(__file__).parent.parent
# Strategies as they are: what comes before the first round would be in all of them. Ten epochs of
# one of the demo's four clients are 156 steps.
PLAIN = {
    "standardize": False,
    "replay": False,
    "lda-skip": False,
    "local-steps": 160,
    "wire-dtype": "float32",
}


def quiet_run(folder: Path, *, num_clients: int = 4, **changes: Any) -> list[dict[str, Any]]:
    """Run both apps with pyproject's settings, plain, and changes; return the run log's rounds."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    threadpool_limits(1)
    app = load_app(ROOT)
    config = {
        **app.config,
        **PLAIN,
        "node-timeout": 0.0,
        "output-dir": str(folder / "run"),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    run_in_process(app.server_app, app.client_app, num_clients, config)
    return read_run(folder / "run")
