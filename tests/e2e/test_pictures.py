"""README's four commands, from a folder of pictures to labels, as a new user types them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from flower_ist.runs.launch import LocalFlower
from tests.fakes import ROOT

pytestmark = pytest.mark.long


def commands() -> list[str]:
    """The lines of README's block, without their comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"## From pictures to labels\n.*?```\n(.*?)```", text, re.DOTALL)
    assert found
    return [re.sub(r"\s+#.*", "", line) for line in found[1].splitlines()]


def fresh_clone(folder: Path) -> None:
    """Copy what git knows of the checkout, changes included."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def write_digits(folder: Path) -> None:
    """Write real scans of handwritten digits: 120 of each in class folders, 300 without labels."""
    digits = load_digits()
    (folder / "new").mkdir()
    seen = np.zeros(10, int)
    for pixels, label in zip(digits.images, digits.target, strict=True):
        picture = Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((28, 28))
        if seen[label] < 120:
            (folder / "pictures" / str(label)).mkdir(parents=True, exist_ok=True)
            picture.save(folder / "pictures" / str(label) / f"{seen[label]}.png")
        elif seen[label] < 150:
            picture.save(folder / "new" / f"scan-{seen[label]}-{label}.png")
        seen[label] += 1


def test_from_pictures_to_labels_in_four_commands(tmp_path: Path):
    fresh_clone(tmp_path)
    write_digits(tmp_path)
    prep, run, evaluate, predict = commands()
    assert [line.split()[:2] for line in (prep, run, evaluate, predict)] == [
        ["flower-ist", "prep"],
        ["flwr", "run"],
        ["flower-ist", "evaluate"],
        ["flower-ist", "predict"],
    ]
    with LocalFlower() as flower:
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(tmp_path),
            # A SuperLink of the test's own, in place of the one that flwr would leave running.
            "FLWR_HOME": str(flower.home),
            "FLWR_TELEMETRY_ENABLED": "0",
        }

        def call(line: str) -> str:
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
                timeout=1200,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            return done.stdout

        call(prep)
        call(run)
        assert "% of 240 examples are right" in call(evaluate)
        rows = list(csv.DictReader(io.StringIO(call(predict))))
    found = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert found["accuracy"] > 0.8
    assert (tmp_path / "evaluation" / "evaluation.html").exists()
    assert (tmp_path / "run" / "README.md").exists()
    assert len(rows) == 300
    right = [row["predicted"] == Path(row["image"]).stem[-1] for row in rows]
    assert np.mean(right) > 0.8
    assert set(rows[0]) == {
        *("image", "predicted", "probability", "predicted_2", "probability_2"),
        *("predicted_3", "probability_3"),
    }
