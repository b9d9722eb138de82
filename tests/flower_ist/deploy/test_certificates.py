"""A server with our certificate is believed under its names only; keys are in Flower's form."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.supernode.register import try_load_public_key

from flower_ist.deploy.certificates import (
    Credential,
    make_authority,
    make_node_key,
    make_server_certificate,
)

NAMES = ("fl.example.org", "192.0.2.7", "2001:db8::7")


@pytest.fixture(scope="module")
def authority() -> Credential:
    return make_authority("edge")


@pytest.fixture(scope="module")
def server(authority: Credential) -> Credential:
    return make_server_certificate(authority, NAMES)


def shake_hands(server: Credential, trusted: Credential, name: str, folder: Path) -> None:
    """Let a client and a server talk TLS through memory; raises if the client refuses."""
    chain, key = folder / "server.crt", folder / "server.key"
    chain.write_bytes(server.certificate)
    key.write_bytes(server.private_key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(chain, key)
    asking = ssl.create_default_context(cadata=trusted.certificate.decode())
    # What Python 3.13 does on its own: certificates must keep to RFC 5280 in every detail.
    asking.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server, server_hostname=name)
    host = serving.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, host):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() == "TLSv1.3"


@pytest.mark.parametrize("name", NAMES)
def test_the_server_is_believed_under_each_name(
    name: str, server: Credential, authority: Credential, tmp_path: Path
) -> None:
    shake_hands(server, authority, name, tmp_path)


@pytest.mark.parametrize("name", ["example.org", "a.fl.example.org", "192.0.2.8", "::1"])
def test_under_another_name_it_is_not(
    name: str, server: Credential, authority: Credential, tmp_path: Path
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        shake_hands(server, authority, name, tmp_path)


def test_another_authority_of_the_same_name_is_not_believed(
    server: Credential, tmp_path: Path
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, make_authority("edge"), NAMES[0], tmp_path)


def test_a_server_cannot_sign_for_others(server: Credential, tmp_path: Path) -> None:
    forged = make_server_certificate(server, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(forged, server, NAMES[0], tmp_path)


def test_names_and_addresses_are_of_their_own_kinds(server: Credential) -> None:
    certificate = x509.load_pem_x509_certificate(server.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org"]
    addresses = names.get_values_for_type(x509.IPAddress)
    assert addresses == [ip_address("192.0.2.7"), ip_address("2001:db8::7")]


def test_an_authority_lives_ten_years_and_a_server_two() -> None:
    begun = datetime.now(UTC).replace(microsecond=0)
    authority = make_authority("edge")
    server = make_server_certificate(authority, NAMES)
    # Both begin a day early, for devices whose clocks are behind.
    for credential, days in ((authority, 3650), (server, 730)):
        certificate = x509.load_pem_x509_certificate(credential.certificate)
        start = certificate.not_valid_before_utc
        assert begun <= start + timedelta(days=1) <= datetime.now(UTC)
        assert certificate.not_valid_after_utc - start == timedelta(days)


def test_node_keys_are_what_flower_reads(tmp_path: Path) -> None:
    key = make_node_key("node-0@edge")
    public = tmp_path / "node.pub"
    public.write_bytes(key.public)
    # As `flower-supernode` reads its private key, and `flwr supernode register` the public one.
    private = serialization.load_ssh_private_key(key.private, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    assert try_load_public_key(public) == private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert key.public.endswith(b" node-0@edge\n")
    assert make_node_key("node-0@edge").private != key.private
