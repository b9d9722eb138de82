"""Flower's config gets a deployment's connection once, and nothing in it is lost."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from flower_ist.deploy.connection import config_file, connect
from flower_ist.deploy.plan import DeployError, DeploymentPlan
from flower_ist.deploy.writer import write_deployment


def lab(folder: Path, port: int = 9092) -> Path:
    plan = DeploymentPlan(("fl.example.org",), ("/data",), port, port + 1, "edge", "1.41.0")
    write_deployment(plan, folder)
    return folder


def test_a_connection_is_added_once(tmp_path: Path) -> None:
    config = tmp_path / "new" / "config.toml"
    folder = lab(tmp_path / "lab")
    assert connect(folder, config)
    once = config.read_text()
    assert tomllib.loads(once)["superlink"]["edge"]["address"] == "127.0.0.1:9093"
    assert not connect(folder, config)
    assert config.read_text() == once


def test_what_is_there_stays(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    before = '# mine\n[superlink.local]\naddress = ":local:"'  # without a last line feed
    config.write_text(before)
    assert connect(lab(tmp_path / "lab"), config)
    assert config.read_text().startswith(before)
    assert set(tomllib.loads(config.read_text())["superlink"]) == {"local", "edge"}


def test_another_connection_of_that_name_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    connect(lab(tmp_path / "one"), config)
    before = config.read_text()
    with pytest.raises(DeployError, match=r"another connection 'edge', to 127.0.0.1:9093"):
        connect(lab(tmp_path / "two", 7000), config)
    assert config.read_text() == before


def test_a_section_that_is_there_twice_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    folder = lab(tmp_path / "lab")
    config.write_text((folder / "connection.toml").read_text() * 2)
    with pytest.raises(DeployError, match=r"\[superlink.edge\] is in it twice, remove one"):
        connect(folder, config)


def test_a_folder_without_a_connection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="give the folder that"):
        connect(tmp_path, tmp_path / "config.toml")


def test_the_file_is_where_flower_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    assert config_file() == tmp_path / "config.toml"
    monkeypatch.delenv("FLWR_HOME")
    assert config_file() == Path.home() / ".flwr" / "config.toml"
