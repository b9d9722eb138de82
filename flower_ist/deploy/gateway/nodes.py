"""Which node a request comes from, and what it may send: known before its body is read.

Flower's SuperNodes sign the time with their key in each request's headers. The signature proves
that the sender has the key; whether the key is registered only the SuperLink knows. So a node is
known from the first call that the SuperLink has accepted, and until then it may send very little.
"""

from __future__ import annotations

import binascii
import logging
import time
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flower_ist.deploy.gateway.short import ShortHeaders, completed

KEY, TIMESTAMP, SIGNATURE = b"flwr-public-key", b"flwr-timestamp", b"flwr-signature"

# Flower's own bounds for the age of a signature, in seconds.
_OLDEST, _FROM_THE_FUTURE = 305.0, 5.0
_RENEW_SECONDS = 35.0
_MAX_NODES = 20_000

_log = logging.getLogger("gateway")


class Node:
    """A node that the SuperLink has accepted.

    Attributes:
        node_id: as the SuperLink has it.
        headers: the newest signed ones.
        lines: open connections.
        message: the answer with the last message, until the node shows that it has it.
        short: headers that the node may name.
    """

    def __init__(self, node_id: int, short: ShortHeaders) -> None:
        self.node_id = node_id
        self.short = short
        self.headers: Mapping[bytes, bytes] = {}
        self.lines = 0
        self.message = b""
        self._signed_at = 0.0
        self._downloaded = 0
        self._uploaded = 0
        self._told = False

    def signed(self, signed_at: float, headers: Mapping[bytes, bytes]) -> None:
        """Keep a request's signed headers if they are the newest."""
        if signed_at > self._signed_at:
            self._signed_at, self.headers = signed_at, headers
        self.short.keep(headers)

    @property
    def signature_is_old(self) -> bool:
        """Whether the SuperLink will soon refuse the newest signature."""
        return time.time() > self._signed_at + _OLDEST - _RENEW_SECONDS

    def got_message(self, content: bytes) -> None:
        """Begin a round: the node may reply to this message."""
        self.message = content
        self._downloaded = self._uploaded = 0
        self._told = False

    def downloads(self, size: int) -> None:
        """Note a part of the message: a reply may be larger if the model is."""
        self._downloaded += size

    def may_upload(self, size: int, least: int) -> bool:
        """Return whether a reply may have ``size`` bytes more, and count them if so.

        Args:
            size: bytes of a request.
            least: bytes that any reply may have.
        """
        limit = least + 2 * self._downloaded
        if self._uploaded + size <= limit:
            self._uploaded += size
            return True
        if not self._told:
            self._told = True
            _log.warning(
                "Node %d sends more than the %d bytes that a reply may have: refused.",
                self.node_id,
                limit,
            )
        return False


class Nodes:
    """The nodes known so far, by public key."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Node] = {}
        self._short: dict[bytes, Mapping[bytes, bytes]] = {}

    def completed(self, headers: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Return a request's headers with those that a node only names."""
        return completed(headers, self._short)

    def get(self, key: bytes) -> Node | None:
        """Return the node with a key, if the SuperLink has accepted it before."""
        return self._by_key.get(key)

    def accepted(self, key: bytes, node_id: int) -> Node:
        """Return the node of a call that the SuperLink has accepted."""
        node = self._by_key.get(key)
        if node is None or node.node_id != node_id:
            self.forget(key)
            while len(self._by_key) >= _MAX_NODES:
                self.forget(next(iter(self._by_key)))
            node = self._by_key[key] = Node(node_id, ShortHeaders(self._short))
        return node

    def forget(self, key: bytes) -> None:
        """The SuperLink does not accept a key, or no longer."""
        if (node := self._by_key.pop(key, None)) is not None:
            node.short.forget()


def signature_time(headers: Mapping[bytes, bytes]) -> float | None:
    """Return when a request's headers were signed, in seconds since 1970; None if they are not.

    The same check as the SuperLink's, which makes it again.
    """
    try:
        timestamp = headers[TIMESTAMP]
        signed_at = datetime.fromisoformat(timestamp.decode("ascii"))
        age = (datetime.now(UTC) - signed_at).total_seconds()
        if not -_FROM_THE_FUTURE < age < _OLDEST:
            return None
        key = load_pem_public_key(b64decode(headers[KEY], validate=True))
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return None
        signature = b64decode(headers[SIGNATURE], validate=True)
        key.verify(signature, timestamp, ec.ECDSA(hashes.SHA256()))
    except (
        *(KeyError, TypeError, ValueError, binascii.Error, InvalidSignature),
        UnsupportedAlgorithm,
    ):
        return None
    return signed_at.timestamp()
