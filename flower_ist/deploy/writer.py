"""Write a deployment's folder, and later give its server a new certificate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files as resources
from pathlib import Path
from string import Template

from cryptography import x509

from flower_ist.deploy.certificates import (
    Credential,
    make_authority,
    make_node_key,
    make_server_certificate,
)
from flower_ist.deploy.duty import parse_duty
from flower_ist.deploy.plan import DeployError, DeploymentPlan, server_names
from flower_ist.files import new_file, new_folder, refuse_existing, write_file
from flower_ist.version import __version__

_HERE = resources("flower_ist.deploy")
_SECRET = 0o600
_PUBLIC = 0o644
_PROGRAM = 0o755
_SUPERLINK = (
    *("start-superlink.sh", "start-gateway.sh", "flower-superlink.service"),
    *("flower-gateway.service", "compose.yaml", "requirements.txt"),
)
_NODE = (
    *("start.sh", "flower-supernode.service", "node-config"),
    *("compose.yaml", "requirements.txt", "README.md"),
)


@dataclass(frozen=True)
class File:
    """A file's content and its mode, such as 0o600."""

    content: bytes
    mode: int = _PUBLIC


def write_deployment(plan: DeploymentPlan, folder: Path) -> None:
    """Write everything that a deployment needs into a new folder, or nothing at all.

    Raises:
        DeployError: the parent folder is missing.
        NotWrittenError: the folder exists already or cannot be written.
    """
    folder = folder.absolute()
    refuse_existing(folder)
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
        "books_port": str(plan.books_port),
        "nodes": str(len(plan.node_data)),
        "flower_version": plan.flower_version,
        "library_version": __version__,
        # A JSON string is a TOML string.
        "ca_path": json.dumps(str(folder / "ca" / "ca.crt"), ensure_ascii=False),
        "ca_end": _last_day(authority),
        "server_end": _last_day(server),
    }
    files = {
        "README.md": File(_fill("README.md", values)),
        "connection.toml": File(_fill("connection.toml", values)),
        "ca/ca.crt": File(authority.certificate),
        "ca/ca.key": File(authority.private_key, _SECRET),
        "superlink/ca.crt": File(authority.certificate),
        "superlink/server.crt": File(server.certificate),
        "superlink/server.key": File(server.private_key, _SECRET),
        **_filled("superlink", "superlink", _SUPERLINK, values),
    }
    duty = parse_duty(plan.duty) if plan.duty else None
    on_duty = {
        "duty": plan.duty,
        "restart": "always" if duty is None else "on-failure",
        "awake": "0" if duty is None else str(duty.awake),
        "calendar": "" if duty is None else duty.calendar,
    }
    node_files = _NODE if duty is None else (*_NODE, "flower-supernode.timer")
    for number, data_path in enumerate(plan.node_data):
        node = f"node-{number}"
        key = make_node_key(f"{node}@{plan.name}")
        own = {
            **values,
            "node": node,
            "node_port": str(plan.node_port(number)),
            "data_path": data_path,
            **on_duty,
        }
        files |= {
            f"nodes/{node}/ca.crt": File(authority.certificate),
            f"nodes/{node}/node.key": File(key.private, _SECRET),
            f"nodes/{node}/node.pub": File(key.public),
            **_filled("node", f"nodes/{node}", node_files, own),
        }
    write_folder(folder, files)


def renew_server_certificate(folder: Path) -> str:
    """Give a deployment's server a new key and a certificate with the names of the old one.

    The devices trust the authority, not the certificate, so nothing changes for them.

    Returns:
        The last day of the new certificate, as YYYY-MM-DD.

    Raises:
        DeployError: the folder does not hold a deployment with its authority's key.
        NotWrittenError: the folder cannot be written.
    """
    try:
        authority = Credential(
            certificate=(folder / "ca" / "ca.crt").read_bytes(),
            private_key=(folder / "ca" / "ca.key").read_bytes(),
        )
        old = x509.load_pem_x509_certificate((folder / "superlink" / "server.crt").read_bytes())
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        new = make_server_certificate(authority, [str(name.value) for name in names])
    except (OSError, ValueError, x509.ExtensionNotFound) as err:
        raise DeployError(
            f"The server certificate in {folder} cannot be renewed: {err}. Give the folder that "
            "'flower-ist deploy init' wrote, with ca/ca.key in it."
        ) from err
    # Both are read together when the SuperLink starts, not in between.
    write_file(folder / "superlink" / "server.key", new.private_key, _SECRET)
    write_file(folder / "superlink" / "server.crt", new.certificate, _PUBLIC)
    return _last_day(new)


def write_folder(folder: Path, files: Mapping[str, File]) -> None:
    """Write files into a new folder; it and all folders in it are accessible only to their owner.

    Args:
        folder: must not exist.
        files: path relative to the folder -> file.

    Raises:
        NotWrittenError: the folder exists, or cannot be written. Nothing is left behind then.
    """
    with new_folder(folder, mode=0o700) as root:
        for name, file in files.items():
            # mkdir applies its mode only to the last folder, so each is created separately.
            for parent in reversed(Path(name).parents):
                (root / parent).mkdir(mode=0o700, exist_ok=True)
            with new_file(root / name, file.mode) as stream:
                stream.write(file.content)


def _filled(
    templates: str, folder: str, names: tuple[str, ...], values: Mapping[str, str]
) -> dict[str, File]:
    return {
        f"{folder}/{name}": File(
            _fill(f"{templates}/{name}", values), _PROGRAM if name.endswith(".sh") else _PUBLIC
        )
        for name in names
    }


def _last_day(credential: Credential) -> str:
    certificate = x509.load_pem_x509_certificate(credential.certificate)
    end = certificate.not_valid_after_utc - timedelta(days=1)
    return end.date().isoformat()


class _AtTemplate(Template):
    """``@{name}`` is replaced and ``@@`` is an at sign: shell scripts keep their dollar signs."""

    delimiter = "@"


def _fill(name: str, values: Mapping[str, str]) -> bytes:
    """Return the text file ``name`` below ``templates/`` with a value for each ``@{...}``."""
    text = (_HERE / "templates" / name).read_text(encoding="utf-8")
    return _AtTemplate(text).substitute(values).encode()
