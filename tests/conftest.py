"""Shards, run configs and whole runs that many tests need."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flower_ist._flwr import TaskIdentity
from flower_ist.token_meta import Encoder, Mask, ShardMeta
from flower_ist.token_writer import ShardWriter

# The nets of the tests are tiny: a second thread would only wait for the first.
torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
CLASSES = ("circle", "square", "star")
DIM = 12


def write_blobs(folder: Path, name: str, count: int, *, seed: int, dtype: str = "float16") -> Path:
    """Write a shard of three Gaussian blobs (N, 12) that a linear probe separates mostly."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(CLASSES), DIM))
    labels = generator.integers(0, len(CLASSES), count)
    tokens = centres[labels] + generator.normal(size=(count, DIM))
    meta = ShardMeta(
        num_examples=count,
        dim=DIM,
        class_names=CLASSES,
        encoder=Encoder(name="blobs", weights_sha256="0" * 64, image_size=8, patch_size=2),
        mask=Mask(kind="random", ratio=0.5, seed=0, patches=16, kept=8),
        image_bytes=64 * count,
        image_file_bytes=70 * count,
        masked_image_bytes=32 * count,
        token_dtype=dtype,
        client=name,
    )
    with ShardWriter(folder / name, meta) as writer:
        writer.append(tokens, labels, np.arange(count))
    return folder / name


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
            "num-rounds": 3,
            "local-steps": 10,
            "batch-size": 16,
            "learning-rate": 0.01,
            "node-timeout": 0.0,
        }
        return {**config, **{key.replace("_", "-"): value for key, value in changes.items()}}

    return make
