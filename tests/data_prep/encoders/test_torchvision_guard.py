import subprocess
import sys

from data_prep.encoders import torchvision_guard
from data_prep.encoders.torchvision_guard import extension_loads, guard_torchvision
from tests.fakes import ROOT


def test_an_extension_that_cannot_load_is_replaced_by_its_schemas(tmp_path):
    """In its own process, as neither operators nor imports can be undone in this one."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "_C.so").write_bytes(b"not a library")
    # What torchvision does on import, and what fails where the operator has no schema.
    (package / "__init__.py").write_text(
        "import torch\n"
        "@torch.library.register_fake('torchvision::nms')\n"
        "def nms(dets, scores, iou_threshold): ...\n"
    )
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
try:
    import torchvision
except RuntimeError as err:
    assert "operator torchvision::nms does not exist" in str(err), err
else:
    raise AssertionError("the stand-in must fail as torchvision does")
from data_prep.encoders.torchvision_guard import guard_torchvision
assert guard_torchvision() is True
assert guard_torchvision() is False
import torchvision
assert guard_torchvision() is False
"""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_torchvision_that_loads_is_left_alone(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torchvision_guard, "extension_loads", lambda package: True)
    assert guard_torchvision() is False


def test_without_torchvision_nothing_is_done(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torchvision_guard.importlib.util, "find_spec", lambda name: None)
    assert guard_torchvision() is False


def test_a_folder_without_an_extension_and_a_broken_one_do_not_load(tmp_path):
    assert not extension_loads(tmp_path)
    (tmp_path / "_C.so").write_bytes(b"")
    assert not extension_loads(tmp_path)
