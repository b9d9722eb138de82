"""Write a deployment's folder, and later give its server a new certificate."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from flower_ist.deploy import gateway
from flower_ist.deploy.certificates import (
    Credential,
    make_authority,
    make_server_certificate,
)
from flower_ist.deploy.folder import File, write_folder
from flower_ist.deploy.node_keys import make_node_key
from flower_ist.deploy.plan import DeployError, DeploymentPlan, server_names
from flower_ist.deploy.templates import fill

_SECRET = 0o600
_PROGRAM = 0o755
_SUPERLINK = (
    *("start-superlink.sh", "start-gateway.sh", "flower-superlink.service"),
    *("flower-gateway.service", "compose.yaml", "requirements.txt"),
)
_NODE = (
    *("start.sh", "flower-supernode.service", "node-config"),
    *("compose.yaml", "requirements.txt", "README.md"),
)


def write_deployment(plan: DeploymentPlan, folder: Path) -> None:
    """Write everything that a deployment needs into a new folder, or nothing at all.

    Raises:
        DeployError: the folder exists already or cannot be written.
    """
    folder = folder.absolute()
    if not folder.parent.is_dir():
        raise DeployError(f"{folder.parent} is not a folder: make it first.")
    authority = make_authority(plan.name)
    server = make_server_certificate(authority, server_names(plan.hosts))
    values = {
        "name": plan.name,
        "host": plan.hosts[0],
        "address": plan.address,
        "listen": plan.listen,
        "port": str(plan.port),
        "control_port": str(plan.control_port),
        "nodes": str(len(plan.node_data)),
        "flower_version": plan.flower_version,
        # A JSON string is a TOML string.
        "ca_path": json.dumps(str(folder / "ca" / "ca.crt"), ensure_ascii=False),
        "ca_end": _last_day(authority),
        "server_end": _last_day(server),
    }
    files = {
        "README.md": File(fill("README.md", values)),
        "connection.toml": File(fill("connection.toml", values)),
        "ca/ca.crt": File(authority.certificate),
        "ca/ca.key": File(authority.private_key, _SECRET),
        "superlink/ca.crt": File(authority.certificate),
        "superlink/server.crt": File(server.certificate),
        "superlink/server.key": File(server.private_key, _SECRET),
        "superlink/gateway.py": File(Path(gateway.__file__).read_bytes()),
        **_filled("superlink", "superlink", _SUPERLINK, values),
    }
    for number, data_path in enumerate(plan.node_data):
        node = f"node-{number}"
        key = make_node_key(f"{node}@{plan.name}")
        own = {
            **values,
            "node": node,
            "node_port": str(plan.node_port(number)),
            "data_path": data_path,
        }
        files |= {
            f"nodes/{node}/ca.crt": File(authority.certificate),
            f"nodes/{node}/node.key": File(key.private, _SECRET),
            f"nodes/{node}/node.pub": File(key.public),
            **_filled("node", f"nodes/{node}", _NODE, own),
        }
    write_folder(folder, files)


def renew_server_certificate(folder: Path) -> str:
    """Give the server of a deployment a new key and certificate, with the names of the old one.

    The devices trust the authority, not the certificate: nothing changes for them.

    Returns:
        The last day of the new certificate, as YYYY-MM-DD.

    Raises:
        DeployError: the folder holds no deployment with its authority's key, or cannot be written.
    """
    try:
        authority = Credential(
            certificate=(folder / "ca" / "ca.crt").read_bytes(),
            private_key=(folder / "ca" / "ca.key").read_bytes(),
        )
        old = x509.load_pem_x509_certificate((folder / "superlink" / "server.crt").read_bytes())
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        new = make_server_certificate(authority, [str(name.value) for name in names])
        # Both are read together when the SuperLink starts, not in between.
        _replace(folder / "superlink" / "server.key", File(new.private_key, _SECRET))
        _replace(folder / "superlink" / "server.crt", File(new.certificate))
    except (OSError, ValueError, x509.ExtensionNotFound) as err:
        raise DeployError(
            f"The server certificate in {folder} cannot be renewed: {err}. Give the folder that "
            "'flower-ist deploy init' wrote, with ca/ca.key in it."
        ) from err
    return _last_day(new)


def _filled(
    templates: str, folder: str, names: tuple[str, ...], values: Mapping[str, str]
) -> dict[str, File]:
    return {
        f"{folder}/{name}": File(
            fill(f"{templates}/{name}", values), _PROGRAM if name.endswith(".sh") else 0o644
        )
        for name in names
    }


def _last_day(credential: Credential) -> str:
    certificate = x509.load_pem_x509_certificate(credential.certificate)
    end = certificate.not_valid_after_utc - timedelta(days=1)
    return end.date().isoformat()


def _replace(path: Path, file: File) -> None:
    # Made with mode 0600, whatever it is to hold.
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as stream:
            stream.write(file.content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, file.mode)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
