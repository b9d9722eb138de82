"""Whole runs of the real ServerApp and ClientApp in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.fakes.apps import run_and_read

MakeConfig = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_learns(blob_config: MakeConfig, strategy: str) -> None:
    rounds, _ = run_and_read(blob_config(strategy=strategy, num_rounds=5))
    assert [line["round"] for line in rounds] == [0, 1, 2, 3, 4, 5]
    assert rounds[0]["accuracy"] < 0.6 < 0.8 < rounds[-1]["accuracy"]


def strip_time(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "settings")} for line in rounds]


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_same_seed_same_run_bit_for_bit(blob_config: MakeConfig, strategy: str) -> None:
    first, weights = run_and_read(blob_config(strategy=strategy))
    second, again = run_and_read(blob_config(strategy=strategy))
    assert strip_time(first) == strip_time(second)
    assert weights.keys() == again.keys()
    for name in weights:
        assert weights[name].tobytes() == again[name].tobytes()


def test_another_seed_another_run(blob_config: MakeConfig) -> None:
    _, weights = run_and_read(blob_config(seed=0))
    _, others = run_and_read(blob_config(seed=1))
    assert not np.array_equal(weights["fc1.weight"], others["fc1.weight"])
