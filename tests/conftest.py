"""Shards, run configs and whole runs that many tests need."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from flower_ist.wire._flwr import TaskIdentity
from tests.fakes import ROOT
from tests.fakes.shards import write_blobs

# The nets of the tests are tiny: a second thread would only wait for the first.
torch.set_num_threads(1)

# How long an example takes says how busy the machine is, not whether the property holds.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def server_identity() -> None:
    """Be a server: outside a Flower process no message can be made without an identity."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 2**63 + 1, 1, 2**63 + 1


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of eight client shards (60 to 67 examples) and a test shard of 300."""
    folder = tmp_path_factory.mktemp("blobs")
    for client in range(8):
        write_blobs(folder, f"client-{client}", 60 + client, seed=client)
    write_blobs(folder, "test", 300, seed=1000)
    return folder


@pytest.fixture(scope="session")
def default_run_config() -> dict[str, Any]:
    """The run config of pyproject.toml."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return dict(content["tool"]["flwr"]["app"]["config"])


@pytest.fixture
def blob_config(
    blobs: Path, default_run_config: dict[str, Any], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Make run configs for small, quick runs on the blobs; keywords are keys with underscores."""
    runs = iter(range(1000))

    def make(**changes: Any) -> dict[str, Any]:
        config = {
            **default_run_config,
            "data-dir": str(blobs),
            "output-dir": str(tmp_path / f"run-{next(runs)}"),
            "hidden-width": 30,
            # As the paper has it: these numbers are derived by hand in many tests.
            "hidden-layers": 2,
            "cut": "all",
            "num-rounds": 3,
            "local-steps": 10,
            "batch-size": 16,
            "learning-rate": 0.01,
            "node-timeout": 0.0,
            # What comes before the first round has tests of its own, and so have wire dtypes.
            "standardize": False,
            "replay": False,
            "lda-skip": False,
            "wire-dtype": "float32",
        }
        return {**config, **{key.replace("_", "-"): value for key, value in changes.items()}}

    return make
