"""The plan of a deployment, checked before anything is written."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flower_ist.deploy.duty import parse_duty
from flower_ist.errors import FlowerIstError
from flower_ist.tokens.shard import ShardError, client_folder, open_shard

_MAX_NODES = 10_000
_DNS_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.IGNORECASE)
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_VERSION = re.compile(r"\d+\.\d+\.\d+([.a-z0-9+-]*)")


class DeployError(FlowerIstError):
    """A deployment cannot be made as requested."""


@dataclass(frozen=True)
class DeploymentPlan:
    """One SuperLink behind a gateway, and the nodes that may connect to it.

    Attributes:
        hosts: names and IP addresses of the SuperLink's machine; devices connect to the first, and
            the server's certificate holds all.
        node_data: absolute path of the token shard on each node's device, one per node.
        port: TCP port of the gateway, the only one that devices need.
        control_port: TCP port of the SuperLink itself, on the loopback address only.
        name: of the connection in the user's Flower config.
        flower_version: the version that all machines run.
        duty: when devices are awake, like ``10 min every 6 h``; always if empty.
    """

    hosts: tuple[str, ...]
    node_data: tuple[str, ...]
    port: int
    control_port: int
    name: str
    flower_version: str
    duty: str = ""

    def __post_init__(self) -> None:
        """Refuse a plan that cannot work.

        Raises:
            DeployError, DutyError: with one sentence.
        """
        if not self.hosts:
            raise DeployError("A deployment needs the name or IP address of its server: --host.")
        for host in self.hosts:
            _check_host(host)
        if not 1 <= len(self.node_data) <= _MAX_NODES:
            raise DeployError(
                f"A deployment has 1 to {_MAX_NODES} nodes, not {len(self.node_data)}."
            )
        for path in self.node_data:
            _check_path(path)
        last = self.node_port(len(self.node_data) - 1)
        if self.control_port == self.port or not 1 <= min(self.port, self.control_port):
            raise DeployError(
                f"The ports {self.port} and {self.control_port} must be two numbers above 0."
            )
        if max(self.port, last) > 65535:
            raise DeployError(
                f"{len(self.node_data)} nodes would use local ports up to {last}: choose a lower "
                "--control-port, so that the last is at most 65535."
            )
        if not _NAME.fullmatch(self.name):
            raise DeployError(
                f"{self.name!r} is no name for a connection: use small letters, digits and hyphens."
            )
        if not _VERSION.fullmatch(self.flower_version):
            raise DeployError(f"{self.flower_version!r} is not a version of Flower, like 1.41.0.")
        if self.duty:
            parse_duty(self.duty)

    @property
    def address(self) -> str:
        """The address that devices connect to, ``host:port``."""
        host = self.hosts[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def listen(self) -> str:
        """The address on which the gateway listens: loopback only if devices use a loopback one."""
        try:
            first = ipaddress.ip_address(self.hosts[0])
        except ValueError:
            return "127.0.0.1" if self.hosts[0].lower() == "localhost" else "0.0.0.0"
        if first.is_loopback:
            return str(first)
        return "::" if first.version == 6 else "0.0.0.0"

    @property
    def books_port(self) -> int:
        """The loopback port on which the gateway tells what devices have paid."""
        return max(self.port, self.control_port) + 1

    def node_port(self, node: int) -> int:
        """Return the loopback port on which a node talks to its own ClientApp process.

        Each node has a different one, so that several can run on one machine.
        """
        return self.books_port + 1 + node


def shard_paths(shards: Path, nodes: int) -> tuple[str, ...]:
    """Return the paths of ``client-0`` to ``client-{nodes - 1}`` in a folder on this machine.

    Raises:
        DeployError: one is missing or is not a token shard.
    """
    folders = [client_folder(shards.absolute(), node) for node in range(nodes)]
    for folder in folders:
        try:
            open_shard(folder)
        except ShardError as err:
            raise DeployError(str(err)) from None
    return tuple(map(str, folders))


def pattern_paths(pattern: str, nodes: int) -> tuple[str, ...]:
    """Return the paths on the devices: the pattern with ``{node}`` replaced by each number."""
    return tuple(pattern.replace("{node}", str(node)) for node in range(nodes))


def server_names(hosts: Sequence[str]) -> tuple[str, ...]:
    """Return all names and addresses for the server's certificate, without duplicates.

    Besides ``hosts`` these are the loopback names, by which the server's own programs and an
    operator's ``ssh -L`` reach it, and the service names within compose.
    """
    return tuple(dict.fromkeys((*hosts, "localhost", "127.0.0.1", "superlink", "gateway")))


def _check_host(host: str) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        # A name that ends in a number would be interpreted as an IPv4 address.
        if (
            len(host) > 253
            or not all(_DNS_LABEL.fullmatch(label) for label in labels)
            or labels[-1].isdigit()
        ):
            raise DeployError(
                f"{host!r} is neither a host name nor an IP address: give it without scheme, port "
                "or brackets."
            ) from None
        return
    if address.is_unspecified or address.is_multicast:
        raise DeployError(
            f"Devices cannot connect to {host}: give the address that they reach the server at."
        )


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise DeployError(f"The shard's path on a device must be absolute, not {path!r}.")
    # The path is in single quotes in the node config, and in double quotes in compose files.
    if not path.isprintable() or set(path) & set("'\"\\$`"):
        raise DeployError(
            f"The shard's path {path!r} must hold no quote, backslash, dollar or control character."
        )
