"""The server process is killed (-9) at every step of writing, and its disk fills up at every step.

A child process runs the whole ServerApp and kills itself at the n-th system call that writes. Then
the run is resumed. Clients are numpy only: autograd does not work in a forked process.
"""

from __future__ import annotations

import errno
import os
import signal
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from flower_ist.files import NotWrittenError
from flower_ist.runs.app import run_in_process
from flower_ist.runs.checkpoint import Checkpoints
from flower_ist.runs.log import RunLogError, read_run
from server_app.app import app as server_app
from tests.fakes.tiny import numpy_app

STEPS = ("write", "fsync", "replace")
ROUNDS = 2


def run(config: dict[str, Any]) -> Path:
    run_in_process(server_app, numpy_app(), 3, config)
    return Path(config["output-dir"])


def every_step(act: Callable[[], None], at: int, set_: Callable[[str, Any], None]) -> list[str]:
    """Call ``act`` before the ``at``-th writing call; return the list that notes all of them."""
    seen: list[str] = []

    def wrap(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) == at:
                act()
            return real(*args, **options)

        return call

    for name in STEPS:
        set_(name, wrap(name))
    return seen


def killed_at(step: int, config: dict[str, Any]) -> None:
    """Run in a child process that is killed before its n-th writing call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: other threads may exist
        child = os.fork()
    if child == 0:
        every_step(lambda: os.kill(os.getpid(), signal.SIGKILL), step, partial(setattr, os))
        try:
            run(config)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.fixture
def make(blob_config: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    options = {"hidden_width": 4, "hidden_layers": 1, "num_rounds": ROUNDS}
    # These clients have no data to tell statistics of.
    options |= {"standardize": False, "replay": False, "lda_skip": False}
    return partial(blob_config, strategy="fedadam", fraction_train=0.7, **options)


def bits(weights: Any) -> dict[str, bytes]:
    return {name: weight.tobytes() for name, weight in weights.items()}


def whole_run(
    make: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, dict[int, dict[str, bytes]]]:
    """Return how many writing calls an undisturbed run makes, and its model after each round."""
    config = make(keep_checkpoints=9)
    seen = every_step(lambda: None, 0, partial(monkeypatch.setattr, os))
    folder = run(config)
    monkeypatch.undo()
    models = {}
    checkpoints = Checkpoints(folder)
    for file in reversed(checkpoints.files()):
        checkpoint = checkpoints.last()
        assert checkpoint is not None
        models[checkpoint.server_round] = bits(checkpoint.weights)
        file.unlink()
    return len(seen), models


def problem_of(config: dict[str, Any]) -> str:
    """Run and return the sentence with which it ended; empty if it ended well."""
    try:
        run(config)
    except (NotWrittenError, RunLogError) as err:
        return str(err)
    return ""


def check_and_resume(config: dict[str, Any], models: dict[int, dict[str, bytes]]) -> None:
    """Whatever is there must be whole; a resume must end in the model of the undisturbed run."""
    folder = Path(config["output-dir"])
    checkpoint = Checkpoints(folder).last()
    done = -1 if checkpoint is None else checkpoint.server_round
    if checkpoint is not None:
        assert bits(checkpoint.weights) == models[done]
    model = folder / "model.safetensors"
    if model.exists() and bits(load_file(model)) != models[done]:
        # It was stopped between the checkpoint and the model's last name.
        assert bits(load_file(model)) == models[done - 1]
        assert bits(load_file(folder / "model.next.safetensors")) == models[done]
    run({**config, "resume": True})
    assert bits(load_file(model)) == models[ROUNDS]
    assert [line["round"] for line in read_run(folder)] == list(range(ROUNDS + 1))
    assert not (folder / "model.next.safetensors").exists()
    assert not list(folder.rglob("*.tmp"))


def test_killed_at_any_step_it_goes_on_to_the_same_bits(make, monkeypatch) -> None:
    steps, models = whole_run(make, monkeypatch)
    assert steps > 20
    for step in range(1, steps + 1, 2):
        config = make()
        killed_at(step, config)
        check_and_resume(config, models)


def test_a_disk_that_is_full_at_any_step_is_one_sentence(make, monkeypatch) -> None:
    steps, models = whole_run(make, monkeypatch)

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert steps > 20
    for step in range(2, steps + 1, 2):
        config = make()
        every_step(full, step, partial(monkeypatch.setattr, os))
        problem = problem_of(config)
        monkeypatch.undo()
        assert "cannot be written" in problem
        assert "No space left on device" in problem
        assert "\n" not in problem
        assert not list(Path(config["output-dir"]).rglob("*.tmp"))
        check_and_resume(config, models)
