"""Everything that a deployment needs is there, belongs together, and no folder knows too much."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from flwr.cli.flower_config import parse_superlink_connection
from flwr.common.config import parse_config_args

from flower_ist import __version__
from flower_ist.deploy import gateway
from flower_ist.deploy.plan import DeployError, DeploymentPlan
from flower_ist.deploy.writer import renew_server_certificate, write_deployment
from flower_ist.files import NotWrittenError

NODES = 3
PLAN = DeploymentPlan(
    hosts=("fl.example.org", "192.0.2.7"),
    node_data=tuple(f"/data/my shard/{node}" for node in range(NODES)),
    port=9092,
    control_port=9093,
    name="edge",
    flower_version="1.41.0",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "lab"
    write_deployment(PLAN, folder)
    return folder


def files(folder: Path, *patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.rglob(pattern))


def test_every_private_key_is_private_and_no_other_file_holds_one(lab: Path) -> None:
    keys = files(lab, "*.key")
    assert [key.relative_to(lab).as_posix() for key in keys] == [
        "ca/ca.key",
        *(f"nodes/node-{node}/node.key" for node in range(NODES)),
        "superlink/server.key",
    ]
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    others = [path for path in lab.rglob("*") if path.is_file() and path not in keys]
    assert not [path for path in others if b"PRIVATE KEY" in path.read_bytes()]


def test_a_devices_folder_holds_its_own_key_and_nobody_elses(lab: Path) -> None:
    """It is all that is copied to the device, so it is all that a thief gets."""
    secrets = {path: path.read_bytes() for path in files(lab, "*.key")}
    assert len(set(secrets.values())) == NODES + 2
    for node in range(NODES):
        folder = lab / "nodes" / f"node-{node}"
        assert files(folder, "*.key") == [folder / "node.key"]
        assert (folder / "ca.crt").read_bytes() == (lab / "ca/ca.crt").read_bytes()
        private = serialization.load_ssh_private_key(secrets[folder / "node.key"], None)
        public = serialization.load_ssh_public_key((folder / "node.pub").read_bytes())
        assert private.public_key() == public
    assert files(lab / "superlink", "*.key") == [lab / "superlink/server.key"]


def test_the_node_config_is_read_by_flower_as_it_is_meant(lab: Path) -> None:
    for node in range(NODES):
        config = (lab / f"nodes/node-{node}/node-config").read_text()
        assert parse_config_args([config]) == {"data-path": f"/data/my shard/{node}"}


def test_the_connection_is_one_that_flower_takes(lab: Path) -> None:
    content = tomllib.loads((lab / "connection.toml").read_text())["superlink"]
    connection = parse_superlink_connection(content["edge"], "edge")
    assert connection.address == "127.0.0.1:9093"
    assert connection.root_certificates == str(lab / "ca/ca.crt")
    assert not connection.insecure
    # It is appended to a file whose last line may lack its end.
    assert (lab / "connection.toml").read_text().startswith("\n")


def test_the_certificate_names_all_hosts(lab: Path) -> None:
    certificate = x509.load_pem_x509_certificate((lab / "superlink/server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [
        *("fl.example.org", "192.0.2.7", "localhost", "127.0.0.1", "superlink", "gateway"),
    ]


def test_scripts_are_programs_in_valid_shell(lab: Path) -> None:
    scripts = files(lab, "*.sh")
    assert len(scripts) == 2 + NODES
    for script in scripts:
        assert os.access(script, os.X_OK)
        subprocess.run(["sh", "-n", str(script)], check=True)
    start = (lab / "nodes/node-2/start.sh").read_text()
    assert "fl.example.org:9092" in start
    assert "--port 9097" in start
    assert "--insecure" not in "".join(script.read_text() for script in scripts)


def test_no_placeholder_is_left(lab: Path) -> None:
    for path in lab.rglob("*"):
        if path.is_file():
            assert "@{" not in path.read_text(), path


@pytest.mark.parametrize(
    ("unit", "program"),
    [
        ("superlink/flower-superlink.service", "/opt/flower-ist/superlink/start-superlink.sh"),
        ("superlink/flower-gateway.service", "/opt/flower-ist/superlink/start-gateway.sh"),
        ("nodes/node-0/flower-supernode.service", "/opt/flower-ist/node/start.sh"),
    ],
)
def test_units_restart_and_give_no_rights(lab: Path, unit: str, program: str) -> None:
    lines = (lab / unit).read_text().splitlines()
    for line in (
        *(f"ExecStart={program}", "Restart=always", "StartLimitIntervalSec=0", "User=flower-ist"),
        *("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"),
        *("PrivateDevices=yes", "RestrictNamespaces=yes", "SystemCallFilter=@system-service"),
    ):
        assert line in lines
    # The program of the unit is one that is in the same folder.
    assert (lab / unit).with_name(program.rpartition("/")[2]).exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_systemd_knows_every_line_of_the_units(lab: Path, tmp_path: Path) -> None:
    for unit in files(lab, "*.service"):
        # The programs are not installed here: any other stands in for them.
        text = re.sub(r"ExecStart=.*", "ExecStart=/bin/true", unit.read_text())
        copy = tmp_path / unit.name
        copy.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(copy)],
            capture_output=True,
            text=True,
            check=False,
        )
        # It may complain of this machine's own units, never of a line in ours.
        assert unit.name not in done.stderr, done.stderr


@pytest.mark.parametrize("folder", ["superlink", "nodes/node-1"])
def test_compose_files_start_our_scripts_in_flowers_images(lab: Path, folder: str) -> None:
    compose = yaml.safe_load((lab / folder / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        image = "supernode" if name == "supernode" else "superlink"
        dockerfile = service["build"]["dockerfile_inline"]
        assert dockerfile.startswith(f"FROM flwr/{image}:1.41.0-py3.13-ubuntu24.04\n")
        # No key gets into an image.
        assert dockerfile.splitlines()[1] == "COPY requirements.txt *.whl /tmp/"
        shell, script = service["entrypoint"]
        assert shell == "/bin/sh"
        assert (lab / folder / script.removeprefix("/deploy/")).exists()
        assert ".:/deploy:ro" in service["volumes"]
        assert service["restart"] == "always"
        assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("folder", ["superlink", "nodes/node-1"])
def test_server_and_devices_install_the_library_that_a_run_s_bundle_does_not_hold(
    lab: Path, folder: str
) -> None:
    lines = (lab / folder / "requirements.txt").read_text().splitlines()
    assert lines[1:] == ["flwr==1.41.0", f"flower-ist=={__version__}"]


def test_in_containers_only_the_gateway_is_open(lab: Path) -> None:
    services = yaml.safe_load((lab / "superlink/compose.yaml").read_text())["services"]
    assert services["superlink"]["ports"] == ["127.0.0.1:9093:9093"]
    assert services["gateway"]["ports"] == ["9092:9092"]
    node = yaml.safe_load((lab / "nodes/node-1/compose.yaml").read_text())["services"]["supernode"]
    assert node["volumes"][2]["source"] == "/data/my shard/1"
    assert "ports" not in node


def test_of_libraries_the_gateway_needs_what_flwr_installs() -> None:
    """And not flwr itself, which would double its memory."""
    imported = {
        name.partition(".")[0] if not name.startswith("flower_ist") else name
        for file in Path(gateway.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    ours = {name for name in imported if name.startswith("flower_ist")}
    assert {name for name in ours if ".gateway" not in name} == {"flower_ist.files"}
    assert imported - ours - set(sys.stdlib_module_names) == {
        *("anyio", "cryptography", "h11", "httpcore")
    }


def test_devices_on_duty_get_a_timer_instead_of_a_unit_that_never_ends(tmp_path: Path) -> None:
    write_deployment(replace(PLAN, duty="10 min every 6 h"), tmp_path / "lab")
    folder = tmp_path / "lab/nodes/node-1"
    service = (folder / "flower-supernode.service").read_text().splitlines()
    assert {"Restart=on-failure", "Environment=AWAKE_SECONDS=600"} <= set(service)
    timer = (folder / "flower-supernode.timer").read_text().splitlines()
    assert {"OnCalendar=*-*-* 00/6:00:00 UTC", "WantedBy=timers.target"} <= set(timer)


def test_without_a_duty_there_is_no_timer(lab: Path) -> None:
    assert files(lab, "*.timer") == []
    assert "Environment=AWAKE_SECONDS=0" in (
        (lab / "nodes/node-0/flower-supernode.service").read_text()
    )


def test_an_existing_folder_is_refused_and_stays(lab: Path) -> None:
    before = {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()}
    with pytest.raises(NotWrittenError, match="exists already"):
        write_deployment(PLAN, lab)
    assert before == {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()}


def test_a_renewed_server_keeps_its_names_and_its_authority(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    write_deployment(PLAN, lab)
    before = {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()}
    last_day = renew_server_certificate(lab)
    after = {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()}
    changed = {path.relative_to(lab).as_posix() for path in after if after[path] != before[path]}
    assert set(before) == set(after)
    assert changed == {"superlink/server.crt", "superlink/server.key"}
    assert (lab / "superlink/server.key").stat().st_mode & 0o777 == 0o600
    old, new = (
        x509.load_pem_x509_certificate(content[lab / "superlink/server.crt"])
        for content in (before, after)
    )
    key = serialization.load_pem_private_key(after[lab / "superlink/server.key"], None)
    assert new.public_key() == key.public_key()
    kind = x509.SubjectAlternativeName
    assert new.extensions.get_extension_for_class(kind) == old.extensions.get_extension_for_class(
        kind
    )
    new.verify_directly_issued_by(x509.load_pem_x509_certificate(before[lab / "ca/ca.crt"]))
    assert last_day < new.not_valid_after_utc.isoformat()


@pytest.mark.parametrize("missing", ["ca/ca.key", "superlink/server.crt"])
def test_without_its_authority_nothing_is_renewed(tmp_path: Path, missing: str) -> None:
    lab = tmp_path / "lab"
    write_deployment(PLAN, lab)
    (lab / missing).unlink()
    with pytest.raises(DeployError, match="cannot be renewed"):
        renew_server_certificate(lab)
