"""The program in docs/using.md, on a device that has onnxruntime and numpy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flower_ist.cli import app
from tests.fakes import ROOT
from tests.fakes.pictures import PictureRun

# An import of any of these fails in the subprocess, as if it were not installed.
ABSENT = ("torch", "timm", "PIL", "onnx", "safetensors", "flwr", "flower_ist", "data_prep")


def program() -> str:
    text = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(found)


def test_the_program_is_short():
    lines = [line for line in program().splitlines() if line.strip()]
    assert len(lines) <= 20
    imported = set(re.findall(r"^import (\w+)", program(), re.MULTILINE))
    assert imported == {"json", "sys", "numpy", "onnxruntime"}


@pytest.mark.slow
def test_it_classifies_images_of_any_size(colors: PictureRun, tmp_path: Path):
    options = ("--with-encoder", "--encoder", colors.encoder, "--out", tmp_path / "model.onnx")
    words = [str(word) for word in ("export", colors.run, *options)]
    assert CliRunner().invoke(app, words).exit_code == 0
    files = {}
    for name in ("red", "green"):
        image = Image.open(colors.pictures / name / "0.png").resize((40, 31))
        np.save(tmp_path / f"{name}.npy", np.asarray(image))
        files[f"{name}.npy"] = name
    hidden = f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", hidden + program(), *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    assert {file: name for file, name, _ in answers} == files
    assert all(1 / 3 < float(chance) <= 1 for _, _, chance in answers)
