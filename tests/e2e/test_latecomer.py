"""A class comes to a running deployment, with a device that joins or with new images of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flower_ist.runs.app_import import find_app
from flower_ist.runs.launch import LocalFlower, tail
from flower_ist.runs.log import RunLogError, read_run
from flower_ist.runs.ports import free_port
from flower_ist.wire.protocol import STATISTICS_QUERY
from server_app.statistics_file import STATISTICS_FILE
from tests.fakes.changing import grow, star_accuracy
from tests.fakes.shards import write_blobs

pytestmark = [pytest.mark.slow, pytest.mark.long]

PATIENCE = 240.0
ROUNDS = 8


def rounds_done(run: Path) -> int:
    try:
        return len(read_run(run)) - 1
    except RunLogError:  # there is no log yet, or nothing in it
        return -1


def serve(tmp_path: Path, once_begun: Callable[[Callable[[int], None]], object]) -> Path:
    """Run with two SuperNodes that have no 'star'; do something after round 1.

    Args:
        tmp_path: gets the data, the logs and the run.
        once_begun: is given a function that starts one client's SuperNode more.

    Returns:
        The run's folder, in which one client was asked for statistics later and 'star' is learnt.
    """
    data, run = tmp_path / "data", tmp_path / "run"
    for client in range(2):
        write_blobs(data, f"client-{client}", 60, seed=client, shares=(0.5, 0.5, 0.0))
    write_blobs(data, "test", 300, seed=1000)

    with LocalFlower(simulation=False) as flower:

        def start(client: int) -> None:
            command = ["flower-supernode", "--insecure", "--superlink", flower.address]
            command += ["--port", str(free_port())]
            command += ["--node-config", f"data-path='{data / f'client-{client}'}'"]
            flower.start(command, tmp_path / f"supernode-{client}.log")

        start(0)
        start(1)
        config = {
            "data-dir": str(data),
            "output-dir": str(run),
            "num-rounds": ROUNDS,
            "hidden-width": 64,
            "node-timeout": 120.0,
            "round-timeout": PATIENCE,
        }
        run_id = flower.submit(find_app(), config)
        deadline = time.monotonic() + PATIENCE
        while rounds_done(run) < 1:
            assert time.monotonic() < deadline, f"round 1 never ended:\n{tail(flower.log_file)}"
            time.sleep(0.1)
        once_begun(start)
        flower.wait(run_id, 2 * PATIENCE)

    rounds = read_run(run)
    assert rounds[1]["clients"].keys() == {"client-0", "client-1"}
    assert [name for line in rounds for name in line["failures"]] == []
    asked = [line["message_types"].get(STATISTICS_QUERY, {}) for line in rounds]
    assert sum(query.get("messages_down", 0) for query in asked) == 1
    assert sum(query.get("messages_up", 0) for query in asked) == 1
    assert star_accuracy(run, data) > 0.8
    return run


def test_a_supernode_that_joins_late_is_counted_in(tmp_path: Path) -> None:
    write_blobs(tmp_path / "data", "client-2", 60, seed=2, shares=(0.0, 0.0, 1.0))
    run = serve(tmp_path, lambda start: start(2))
    assert read_run(run)[-1]["clients"].keys() == {"client-0", "client-1", "client-2"}
    np.testing.assert_array_equal(load_file(run / STATISTICS_FILE)["counts"][2], 60)


def test_images_that_join_a_supernode_s_shard_are_counted_in(tmp_path: Path) -> None:
    """Each message has a process of its own: the node's state says what was told before."""
    new = write_blobs(tmp_path / "new", "stars", 50, seed=7, shares=(0.0, 0.0, 1.0))
    run = serve(tmp_path, lambda start: grow(tmp_path / "data" / "client-1", new))
    assert read_run(run)[-1]["clients"].keys() == {"client-0", "client-1"}
    np.testing.assert_array_equal(load_file(run / STATISTICS_FILE)["counts"][2], 50)
