"""The federation's own certificate authority, the server's certificate, and the nodes' keys.

Elliptic curve P-384 throughout (FIPS 186-5); certificates as in RFC 5280.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
"""Ten years: replacing it requires access to every device."""

SERVER_DAYS = 730
"""Two years: it is replaced only on the server."""

# Devices without a battery-backed clock may start with a clock that is slow.
_EARLIER = timedelta(days=1)


@dataclass(frozen=True)
class Credential:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    private_key: bytes


def make_authority(name: str) -> Credential:
    """Make a certificate authority for :data:`CA_DAYS` days that can sign server certificates only.

    Args:
        name: of the federation; it is shown in the certificate.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _subject(f"{name} CA")
    builder = _builder(subject, subject, key, CA_DAYS)
    usage = _key_usage(sign_certificates=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    return _sign(builder, key, key)


def make_server_certificate(authority: Credential, names: Sequence[str]) -> Credential:
    """Make a server's key and a certificate of :data:`SERVER_DAYS` days for it.

    Args:
        authority: signs it.
        names: host names and IP addresses that clients may connect to; the first is its subject.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.private_key, password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    subject = _subject(names[0][:64])
    builder = _builder(subject, issuer.subject, key, SERVER_DAYS)
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(sign_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (alternatives, False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return _sign(builder, key, issuer_key)


@dataclass(frozen=True)
class NodeKey:
    """A key pair by which a SuperLink identifies a node, in OpenSSH format, each a whole file.

    Flower 1.41 reads the private key with ``flower-supernode --auth-supernode-private-key`` and the
    public one with ``flwr supernode register``.
    """

    private: bytes
    public: bytes


def make_node_key(comment: str) -> NodeKey:
    """Make a key pair; ``comment`` follows the public key, for human readers."""
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


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - _EARLIER
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> Credential:
    certificate = builder.sign(issuer_key, hashes.SHA384())
    return Credential(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        private_key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
