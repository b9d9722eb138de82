"""Do one run of a comparison in a process of its own.

    python -m flower_ist.compare.worker RUN_FOLDER

The folder holds ``settings.json`` and ``task.json``. At the end it holds ``done.json`` or
``failed.txt``. The process ends when its standard input does, that is when the comparison that
started it is gone, however it went.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from flower_ist.compare.folder import (
    DONE_FILE,
    FAILED_FILE,
    SETTINGS_FILE,
    TASK_FILE,
    write_whole,
)

_GRACE_SECONDS = 20.0
_RUN_SECONDS = 24 * 3600.0
_LOG_LINES = 200


def main(folder: Path) -> int:
    """Do the run of a folder and return the exit status."""
    try:
        task = json.loads((folder / TASK_FILE).read_text(encoding="utf-8"))
        config = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        began = time.monotonic()
        (_run_flwr if task["engine"] == "flwr" else _run_here)(task, config)
        seconds = {"wall": time.monotonic() - began, "cpu": time.process_time()}
        write_whole(folder / DONE_FILE, json.dumps({"seconds": seconds}) + "\n")
    except Exception as err:  # whatever it is, the other runs go on and the reader gets a sentence
        logging.getLogger("flwr").exception("The run failed.")
        # What follows the first line of an error is a log, which is in the output.
        text = str(err).strip().partition("\n")[0].rstrip(":") or type(err).__name__
        write_whole(folder / FAILED_FILE, text + "\n")
        return 1
    return 0


def _run_here(task: dict[str, Any], config: dict[str, Any]) -> None:
    import torch

    from flower_ist.runs.app import load_app, run_in_process

    torch.set_num_threads(1)
    app = load_app(Path(task["app"]))
    run_in_process(app.server_app, app.client_app, task["clients"], config)


def _run_flwr(task: dict[str, Any], config: dict[str, Any]) -> None:
    from flower_ist.runs.launch import LaunchError, LocalFlower, tail

    with LocalFlower() as flower:
        run_id = flower.submit(Path(task["app"]), config, task["clients"])
        log = Path(config["output-dir"]) / "run.jsonl"

        def over() -> bool:
            return log.exists() and len(log.read_bytes().splitlines()) > config["num-rounds"]

        try:
            flower.wait(run_id, _RUN_SECONDS, on_poll=over)
        except LaunchError:
            # Flower's own reason is in its log, which is gone with its home.
            logging.getLogger("flwr").error("%s", tail(flower.log_file, _LOG_LINES))
            raise


def _end_with_parent(folder: Path) -> None:
    # Nothing is ever written: the pipe ends when the comparison does. Python's own reader would
    # hold a lock that the interpreter wants when it shuts down.
    os.read(sys.stdin.fileno(), 1)
    if json.loads((folder / TASK_FILE).read_text(encoding="utf-8"))["engine"] == "flwr":
        _thread.interrupt_main()  # so that Flower's programs are ended too
        time.sleep(_GRACE_SECONDS)
    # An interrupt can be swallowed, by an import for one: then the run would go on by itself.
    os._exit(1)


if __name__ == "__main__":
    run_folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, args=(run_folder,), daemon=True).start()
    sys.exit(main(run_folder))
