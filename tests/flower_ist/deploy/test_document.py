"""docs/deploying.md: the blocks that no test can run name only files that are really written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from flower_ist.deploy.command import DEVICE_SHARD
from flower_ist.deploy.plan import DeploymentPlan
from flower_ist.deploy.writer import write_deployment
from tests.fakes import ROOT
from tests.fakes.secured import code_blocks, with_values

DOCUMENT = ROOT / "docs" / "deploying.md"


@pytest.mark.parametrize("language", ["bash", "sh"])
def test_every_block_is_valid_shell(language: str) -> None:
    blocks = code_blocks(DOCUMENT, language)
    assert len(blocks) == {"bash": 8, "sh": 4}[language]
    for block in blocks:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_files_that_are_installed_as_root_exist(tmp_path: Path) -> None:
    plan = DeploymentPlan(("fl.example.org",), (DEVICE_SHARD,), 9092, 9093, "edge", "1.41.0")
    write_deployment(plan, tmp_path / "lab")
    text = "\n".join(code_blocks(DOCUMENT, "sh"))
    folders = {"node": tmp_path / "lab/nodes/node-0", "superlink": tmp_path / "lab/superlink"}
    named = re.findall(r"/opt/flower-ist/(node|superlink)/([\w*.-]+)", text)
    assert {folder for folder, _ in named} == {"node", "superlink"}
    for folder, name in named:
        assert list(folders[folder].glob(name)), name
    # What is enabled is what was copied to systemd's folder.
    for unit in re.findall(r"enable --now (.*)", text):
        for name in unit.split():
            assert any((path / f"{name}.service").exists() for path in folders.values()), name
    assert f"{DEVICE_SHARD}\n" in text


def test_a_variable_that_the_document_does_not_set_is_noticed() -> None:
    settings = "A=1  # one\nexport B=~/b\n"
    assert with_values(settings, {"A": "7", "B": "/x"}) == "A=7  # one\nexport B=/x\n"
    with pytest.raises(AssertionError, match="sets C 0 times"):
        with_values(settings, {"C": "7"})
