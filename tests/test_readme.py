"""The code of README.md and docs/resuming.md works as it stands there."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context
from flwr.serverapp.strategy import FedAvgM

from flower_ist.runs.app import run_in_process
from flower_ist.runs.checkpoint import Checkpoint, Checkpoints
from flower_ist.strategies.resumed import ResumedStrategy
from flower_ist.strategies.state import strategy_state
from tests.fakes import ROOT


def python_of(document: str) -> str:
    """All blocks of Python in a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def load_data(context: Context) -> tuple[torch.Tensor, torch.Tensor]:
    """What a quickstart app brings of its own: here ten blobs in 64 dimensions."""
    centers = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1 + int(context.node_config["partition-id"]))
    labels = torch.randint(0, 10, (80,), generator=generator)
    return centers[labels] + 0.5 * torch.randn(80, 64, generator=generator), labels


@pytest.mark.parametrize("packed", [True, False])
def test_the_apps_of_the_readme_train(packed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    code = python_of("README.md")
    if not packed:
        code = code.replace("mods=[packed_mod]", "").replace("Packed(), ", "")
    names: dict[str, Any] = {"load_data": load_data}
    exec(compile(code, "README.md", "exec"), names)
    run_in_process(names["server_app"], names["client_app"], 4, {})
    # A slice: 64 of 256 neurons, 64*64 + 64 + 10*64 + 10 = 4,810 weights to each of 4 clients.
    assert "payload_bytes_down=76960" in capsys.readouterr().out


def test_the_block_of_resuming_goes_on_with_the_whole_run(tmp_path: Path) -> None:
    done = FedAvgM()
    done.momentum_vector = [np.array([0.5, -0.5], np.float32)]
    random.seed(7)
    weights = {"fc1.bias": np.array([1.0, 2.0], np.float32)}
    Checkpoints(tmp_path).save(Checkpoint(12, weights, strategy_state(done), 0, {}))
    drawn = random.random()

    initial = {"fc1.bias": np.zeros(2, np.float32)}
    names: dict[str, Any] = {"folder": tmp_path, "strategy": FedAvgM(), "weights": initial}
    exec(compile(python_of("docs/resuming.md"), "resuming.md", "exec"), names)
    resumed = names["strategy"]
    assert isinstance(resumed, ResumedStrategy)
    assert resumed.rounds_done == 12
    np.testing.assert_array_equal(names["weights"]["fc1.bias"], [1.0, 2.0])
    np.testing.assert_array_equal(resumed.strategy.momentum_vector[0], [0.5, -0.5])
    assert random.random() == drawn

    names = {"folder": tmp_path / "new", "strategy": done, "weights": initial}
    exec(compile(python_of("docs/resuming.md"), "resuming.md", "exec"), names)
    assert names["strategy"] is done
    assert names["weights"] is initial
