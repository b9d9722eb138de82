"""``flower-ist deploy`` as it is typed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from flower_ist.cli import app
from flower_ist.tokens import demo as demo_tokens
from flower_ist.tokens.shard import open_shard


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["deploy", *words])


def test_init_takes_several_hosts_and_the_installed_flower(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    words = ("init", str(lab), "--nodes", "2", "--host", "fl.example.org", "--host", "192.0.2.7")
    done = call(*words, "--data", "/data/{node}")
    assert done.exit_code == 0, done.output
    assert "Devices connect to fl.example.org:9092" in done.output
    assert (lab / "nodes/node-1/node-config").read_text() == "data-path='/data/1'\n"
    assert f"flwr=={version('flwr')}\n" in (lab / "nodes/node-0/requirements.txt").read_text()
    assert "127.0.0.1:9093" in (lab / "connection.toml").read_text()
    assert not (lab / "nodes/node-2").exists()

    again = call(*words)
    assert again.exit_code == 1
    assert f"{lab} exists already: choose another" in again.output.replace("\n", "")

    renewed = call("renew", str(lab))
    assert renewed.exit_code == 0
    assert "good until" in renewed.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--nodes", "2", "--host", "https://a.org"), "neither a host name nor an IP address"),
        (("--nodes", "2", "--host", "a.org", "--data", "x"), "must be absolute"),
        (("--nodes", "2", "--host", "a.org", "--flower-version", "x"), "not a version of Flower"),
        (("--nodes", "2", "--host", "a.org", "--shards", "/nowhere"), "/nowhere/client-0"),
        (("--nodes", "2", "--host", "a.org", "--shards", "/a", "--data", "/b"), "Give either"),
        (("--nodes", "2", "--host", "a.org", "--duty", "now and then"), "no duty"),
    ],
)
def test_what_cannot_work_leaves_nothing(
    words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    done = call("init", str(tmp_path / "lab"), *words)
    assert done.exit_code == 1
    assert sentence in done.output
    assert not list(tmp_path.iterdir())


def test_demo_shards_are_the_demo_tokens(tmp_path: Path) -> None:
    assert call("demo-shards", str(tmp_path / "shards"), "--nodes", "3").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [
        *("client-0", "client-1", "client-2", "test"),
    ]
    shard = open_shard(tmp_path / "shards/client-1", verify=True)
    expected = demo_tokens.train_shard(1, 3)
    assert shard.meta.client == expected.meta.client
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(shard.arrays()[name], array)
    assert len(open_shard(tmp_path / "shards/test", verify=True)) == 2000

    again = call("demo-shards", str(tmp_path / "shards"), "--nodes", "3")
    assert again.exit_code == 1
    assert "exists already" in again.output
    many = call("demo-shards", str(tmp_path / "many"), "--nodes", "401")
    assert many.exit_code == 1
    assert "1 to 400 clients" in many.output


def test_connect_may_be_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    assert call("init", str(tmp_path / "lab"), "--nodes", "1", "--host", "a.org").exit_code == 0
    added, again = (call("connect", str(tmp_path / "lab")) for _ in range(2))
    assert (added.exit_code, again.exit_code) == (0, 0)
    assert "was added to" in added.output
    assert "is in" in again.output
    nothing = call("connect", str(tmp_path))
    assert nothing.exit_code == 1
    assert "give the folder that" in nothing.output.replace("\n", " ")
