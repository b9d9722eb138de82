"""Installed, not cloned: the wheel in an environment of its own, without git or a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flower_ist.runs.log import read_run
from tests.fakes import ROOT

pytestmark = pytest.mark.long


class Installation:
    """A new environment with the wheel in it, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.programs = folder / "environment" / "bin"
        subprocess.run([sys.executable, "-m", "venv", self.programs.parent], check=True)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
        subprocess.run([*build, ROOT], check=True, capture_output=True)
        (self.wheel,) = folder.glob("*.whl")
        # Ray starts its workers by this; of the machine's other programs none is there.
        (self.programs / "bash").symlink_to("/bin/bash")

    def pip(self, *requirements: str) -> None:
        constraints = ("--constraint", str(ROOT / "constraints.txt"))
        self.run("python", "-m", "pip", "install", "--quiet", *constraints, *requirements)

    def run(self, program: str, *words: str) -> str:
        """Run a program with nothing on the path but this environment; it must exit with 0."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in ("PYTHONPATH", "VIRTUAL_ENV") and not key.startswith(("FLWR_", "GIT_"))
        }
        done = subprocess.run(
            [self.programs / program, *words],
            cwd=self.work,
            env={**kept, "PATH": str(self.programs), "HOME": str(self.work)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def test_the_demo_runs_from_an_installed_wheel(tmp_path: Path) -> None:
    """First without Ray, in one process, then with it as a real ``flwr run``; the bytes agree."""
    here = Installation(tmp_path)
    here.pip(f"{here.wheel}[plot]")
    told = here.run("flower-ist", "demo", "--rounds", "2", "--out", "first")
    assert "Ray is not installed" in told
    assert "is +" in told or "is -" in told
    (first,) = (here.work / "first").iterdir()
    assert (first / "accuracy-by-bytes.png").stat().st_size > 10_000
    assert here.run("flower-ist", "app").startswith(str(here.programs.parent))

    # The extra's name alone: what is installed already is not looked for anywhere.
    here.pip("flower-ist[simulation]")
    told = here.run("flower-ist", "demo", "--rounds", "2", "--out", "second")
    assert "Ray is not installed" not in told
    (second,) = (here.work / "second").iterdir()
    for name in ("ist", "fedavg-narrow", "fedavg"):
        one, other = (read_run(folder / name) for folder in (first, second))
        assert len(one) == len(other) == 3
        for ours, theirs in zip(one, other, strict=True):
            for key in ("wire_bytes_down", "wire_bytes_up"):
                # The last bit of FedAvg's mean depends on the order of the replies, and the bytes
                # of `compact` on the bits. A slice of IST has one owner.
                room = 0 if name == "ist" else 1e-3 * theirs[key]
                assert abs(ours[key] - theirs[key]) <= room
        assert one[-1]["accuracy"] == pytest.approx(other[-1]["accuracy"], abs=0.02)
