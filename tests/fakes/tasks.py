"""What a comparison's processes do in tests: no torch, and ends of all kinds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def fake_run(app: Path, engine: str, clients: int, config: Mapping[str, Any]) -> bool:
    """Write when it began and ended; fail for seed 1, die for seed 2, last for seed 3."""
    folder = Path(config["output-dir"])
    began = time.time()
    if config["seed"] == 1:
        (folder / "failed.txt").write_text("There are no clients.")
        return False
    if config["seed"] == 2:
        os.kill(os.getpid(), 9)
    if config["seed"] == 3:
        print("This will take a while.", flush=True)
        (folder / "began.txt").write_text(str(os.getpid()))
        time.sleep(600)
    time.sleep(0.4)
    (folder / "run.jsonl").write_text('{"round": 2, "accuracy": 0.5}\n')
    (folder / "done.json").write_text(json.dumps([began, time.time()]))
    return True
