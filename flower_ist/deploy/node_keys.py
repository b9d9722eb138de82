"""The key pairs by which a SuperLink knows its nodes.

Flower 1.41 reads both in OpenSSH's format: the private key with ``flower-supernode
--auth-supernode-private-key``, the public key with ``flwr supernode register``. It takes any NIST
curve; this is P-384, as in its own documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class NodeKey:
    """A key pair in OpenSSH's format, each a whole file."""

    private: bytes
    public: bytes


def make_node_key(comment: str) -> NodeKey:
    """Make a key pair; ``comment`` stands behind the public key for whoever reads it."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return NodeKey(private=private, public=public + f" {comment}\n".encode())
