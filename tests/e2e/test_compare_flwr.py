"""``flower-ist compare --engine flwr``: real ``flwr run`` simulations, with the figures of ours."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.numpy import load_file

from flower_ist.compare.command import compare
from flower_ist.runs.log import read_run
from tests.fakes.comparisons import tiny_plan

pytestmark = [pytest.mark.slow, pytest.mark.long]

STRATEGIES = ("fedrolex", "ridge")
# What two programs cannot have in common: their clocks, and where and how they ran.
OWN = {"seconds", "settings"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, blobs: Path) -> dict[str, Path]:
    """The same comparison with both engines: engine -> its folder."""
    folders = {}
    for engine in ("inprocess", "flwr"):
        console = Console(file=io.StringIO())
        folders[engine] = tmp_path_factory.mktemp(engine)
        plan = tiny_plan(blobs, ",".join(STRATEGIES), engine=engine)
        finished = compare(plan, folders[engine], console)
        assert finished, console.file.getvalue()  # type: ignore[attr-defined]
    return folders


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rounds_are_the_same_but_for_the_clock(outcomes: dict[str, Path], strategy: str) -> None:
    """Accuracy, loss, coverage and every byte, per client and message type.

    With two clients it is all one in which order their replies come: a + b is b + a to the bit.
    """
    ours, flowers = (
        read_run(outcomes[engine] / "runs" / f"{strategy}-default-seed0")
        for engine in ("inprocess", "flwr")
    )
    assert len(ours) == (3 if strategy == "fedrolex" else 2)
    for one, other in zip(ours, flowers, strict=True):
        assert one.keys() == other.keys()
        assert {k: one[k] for k in one.keys() - OWN} == {k: other[k] for k in one.keys() - OWN}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_models_are_the_same_bit_for_bit(outcomes: dict[str, Path], strategy: str) -> None:
    ours, flowers = (
        load_file(outcomes[engine] / "runs" / f"{strategy}-default-seed0" / "model.safetensors")
        for engine in ("inprocess", "flwr")
    )
    assert ours.keys() == flowers.keys()
    assert all(flowers[name].tobytes() == array.tobytes() for name, array in ours.items())


def test_the_reports_have_the_same_figures(outcomes: dict[str, Path]) -> None:
    ours, flowers = ((folder / "compare.csv").read_text() for folder in outcomes.values())
    assert ours == flowers
