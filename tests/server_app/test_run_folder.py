"""What a run leaves behind: whole files or none, readable by anyone."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from flower_ist import files as durable
from flower_ist.files import NotWrittenError
from server_app.run_folder import output_folder, write_model, write_settings
from server_app.settings import Settings

WEIGHTS = {
    "fc1.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fc1.bias": np.array([1.5, -2], np.float32),
}


@pytest.fixture
def settings(default_run_config: dict[str, Any]) -> Settings:
    return Settings.from_run_config(default_run_config)


def test_a_model_is_readable_with_its_header(tmp_path):
    file = tmp_path / "model.safetensors"
    write_model(file, WEIGHTS, {"format": "mlp", "dims": [3, 2], "seed": 0})
    assert file == tmp_path / "model.safetensors"
    with safe_open(file, framework="numpy") as opened:
        assert opened.metadata() == {"format": "mlp", "dims": "[3, 2]", "seed": "0"}
        assert set(opened.keys()) == set(WEIGHTS)
        for name, weight in WEIGHTS.items():
            assert opened.get_tensor(name).tobytes() == weight.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda array: np.flip(array, 0)])
def test_weights_in_any_memory_order_are_written_right(tmp_path, layout):
    weight = layout(WEIGHTS["fc1.weight"])
    file = tmp_path / "model.safetensors"
    write_model(file, {"w": weight}, {})
    with safe_open(file, framework="numpy") as opened:
        np.testing.assert_array_equal(opened.get_tensor("w"), weight)


def test_a_model_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    write_model(file, WEIGHTS, {})
    old = file.read_bytes()

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", fail)
    with pytest.raises(NotWrittenError, match=r"model.safetensors cannot be written \(No space"):
        write_model(file, {"other": np.zeros(3)}, {})
    assert (tmp_path / "model.safetensors").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_settings_come_back(tmp_path, settings):
    write_settings(tmp_path, settings)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
    content = json.loads((tmp_path / "settings.json").read_text())
    assert Settings.from_run_config(content) == settings


def test_settings_that_cannot_be_written_leave_the_old_ones(tmp_path, settings, monkeypatch):
    write_settings(tmp_path, settings)

    def fail(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(durable.os, "replace", fail)
    with pytest.raises(NotWrittenError, match="the disk is full"):
        write_settings(tmp_path, settings.model_copy(update={"seed": 9}))
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 0


def test_the_folder_is_the_one_that_is_set_or_a_new_one_at_home(tmp_path, settings, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    elsewhere = settings.model_copy(update={"output_dir": "/runs/a"})
    assert output_folder(elsewhere, 5) == Path("/runs/a")
    folder = output_folder(settings, 5)
    assert folder.parent == tmp_path / "flower-ist-runs"
    assert folder.name.endswith("-ist-5")
