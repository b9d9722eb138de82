"""What a deployment may be asked for, and what is refused with one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flower_ist.deploy.plan import (
    DeployError,
    DeploymentPlan,
    pattern_paths,
    server_names,
    shard_paths,
)


def make_plan(**changes: Any) -> DeploymentPlan:
    values: dict[str, Any] = {
        "hosts": ("fl.example.org",),
        "node_data": ("/data/0", "/data/1", "/data/2"),
        "port": 9092,
        "control_port": 9093,
        "name": "edge",
        "flower_version": "1.41.0",
    }
    return DeploymentPlan(**{**values, **changes})


@pytest.mark.parametrize(
    ("host", "address", "listen"),
    [
        ("fl.example.org", "fl.example.org:9092", "0.0.0.0"),
        ("192.0.2.7", "192.0.2.7:9092", "0.0.0.0"),
        ("2001:db8::7", "[2001:db8::7]:9092", "::"),
        ("127.0.0.1", "127.0.0.1:9092", "127.0.0.1"),
        ("::1", "[::1]:9092", "::1"),
        ("localhost", "localhost:9092", "127.0.0.1"),
    ],
)
def test_the_gateway_is_open_only_where_devices_come_from_outside(
    host: str, address: str, listen: str
) -> None:
    plan = make_plan(hosts=(host,))
    assert (plan.address, plan.listen) == (address, listen)


def test_nodes_on_one_machine_have_a_port_each_beside_the_servers() -> None:
    plan = make_plan()
    assert [plan.node_port(node) for node in range(3)] == [9095, 9096, 9097]
    # A high control port moves them along.
    assert make_plan(control_port=20000).node_port(0) == 20002


@pytest.mark.parametrize(
    "host",
    [
        *("https://fl.example.org", "fl.example.org:9092", "[2001:db8::7]", "a b", "", "*.org"),
        *("-a.org", "fl..org", "1.2.3.4.5", "256.0.0.1", "x" * 64, "a\n", "$(id)", "0.0.0.0", "::"),
    ],
)
def test_a_host_that_is_no_name_and_no_address_is_refused(host: str) -> None:
    with pytest.raises(DeployError, match=r"nor an IP address|cannot connect to"):
        make_plan(hosts=("fl.example.org", host))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hosts": ()}, "--host"),
        ({"node_data": ()}, "1 to 10000 nodes, not 0"),
        ({"node_data": ("data/0",)}, "must be absolute, not 'data/0'"),
        ({"node_data": ("/it's",)}, "must hold no quote"),
        ({"node_data": ("/a\nb",)}, "must hold no quote"),
        ({"node_data": ("/a$(id)",)}, "must hold no quote"),
        ({"control_port": 9092}, "must be two numbers"),
        ({"port": 0}, "must be two numbers"),
        ({"control_port": 65532}, "lower --control-port"),
        ({"port": 70000}, "lower --control-port"),
        ({"name": "My federation"}, "small letters"),
        ({"name": "a]\n[b"}, "small letters"),
        ({"flower_version": "1.41"}, "not a version"),
        ({"flower_version": "1.41.0; id"}, "not a version"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DeployError, match=sentence):
        make_plan(**changes)


def test_the_last_port_may_be_the_last_there_is() -> None:
    # The gateway's books at 65532, and three nodes: 65533, 65534, 65535.
    assert make_plan(control_port=65531).node_port(2) == 65535


def test_paths_follow_a_pattern_or_a_folder_of_shards(blobs: Path) -> None:
    assert pattern_paths("/data/{node}/shard", 2) == ("/data/0/shard", "/data/1/shard")
    assert pattern_paths("/data/shard", 2) == ("/data/shard", "/data/shard")
    assert shard_paths(blobs, 2) == (str(blobs / "client-0"), str(blobs / "client-1"))
    with pytest.raises(DeployError, match="client-8"):
        shard_paths(blobs, 9)


def test_the_certificate_holds_the_loopback_names_too() -> None:
    assert server_names(["127.0.0.1", "fl.example.org"]) == (
        *("127.0.0.1", "fl.example.org", "localhost", "superlink", "gateway"),
    )
