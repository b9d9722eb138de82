"""Other versions of Flower than the pinned one: the oldest that is allowed, and the next.

Each gets an environment of its own, with this one's packages behind it, so that only flwr differs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.fakes import ROOT

pytestmark = pytest.mark.long

TESTS = (
    "flower_ist/grids",
    "flower_ist/strategies",
    "flower_ist/runs/test_recorder.py",
    "server_app/test_early_stop.py",
    "e2e/test_deployment.py",
)


def environment_with(requirement: str, folder: Path) -> Path:
    """Return the Python of a new environment with this flwr; skip if no index has it."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--pre", requirement]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stderr:
        pytest.skip(f"The package index has no {requirement}.")
    assert done.returncode == 0, done.stderr
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


@pytest.mark.parametrize(("requirement", "ends_early"), [("flwr==1.41.0", 0), ("flwr-nightly", 1)])
def test_grids_strategies_and_a_deployment_with_another_flower(
    tmp_path: Path, requirement: str, ends_early: int
) -> None:
    python = environment_with(requirement, tmp_path / "environment")
    ours = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [
            *(python, "-W", "ignore", "-c"),
            "import flwr; from flower_ist.strategies.resumed import HAS_SHOULD_STOP as h; "
            "print(flwr.__file__, int(h))",
        ],
        env=ours,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert told[0].startswith(str(tmp_path))
    # flwr 1.43 is the first with `should_stop`; the nightly may be any later one.
    assert int(told[1]) == ends_early
    tests = [str(ROOT / "tests" / name) for name in TESTS]
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=ours,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
