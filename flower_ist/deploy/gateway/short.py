"""One short header in the place of those that a node sends with each of its requests.

Flower's client sends each object of a message in a request of its own, with about 700 bytes of
headers that name the node's key, its version and a signed time. A device that our start script
started (:mod:`flower_ist.deploy.short_transport`) sends them in full every two minutes. In between
it names the last of them by a digest of their signature, and the gateway puts them back before it
checks anything. So a request is neither trusted more nor longer than one in full: Flower's
signature is of the time alone, and whoever knows it could send it again as well.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping

HEADER = "flower-ist"
ASKED = "short"
"""The header's value in a request in full, and in the answer of a gateway that will know it."""

_NAME = HEADER.encode()
_ASKED = ASKED.encode()
_KEPT = frozenset(
    {
        *(b"content-type", b"accept", b"accept-encoding"),
        *(b"flwr-public-key", b"flwr-timestamp", b"flwr-signature"),
        *(b"flwr-package-name", b"flwr-package-version", b"flwr-component-name"),
    }
)
# A node's two threads may each have sent theirs in full.
_KEPT_OF_A_NODE = 2
_DIGEST_LENGTH = 16


def digest(signature: bytes) -> bytes:
    """Return what names the headers with this signature: 96 bits of its SHA-256."""
    return urlsafe_b64encode(hashlib.sha256(signature).digest())[:_DIGEST_LENGTH]


class ShortHeaders:
    """The headers that one node sent in full, by digest.

    Args:
        index: digest -> headers of all nodes; this one's are added and taken out again.
    """

    def __init__(self, index: dict[bytes, Mapping[bytes, bytes]]) -> None:
        self._index = index
        self._digests: list[bytes] = []

    def keep(self, headers: Mapping[bytes, bytes]) -> None:
        """Keep the headers of an accepted request, if its sender will name them."""
        if headers.get(_NAME) != _ASKED:
            return
        name = digest(headers[b"flwr-signature"])
        if name in self._digests:
            return
        self._index[name] = {k: v for k, v in headers.items() if k in _KEPT}
        self._digests.append(name)
        while len(self._digests) > _KEPT_OF_A_NODE:
            self._index.pop(self._digests.pop(0), None)

    def forget(self) -> None:
        """The node is gone."""
        for name in self._digests:
            self._index.pop(name, None)
        self._digests.clear()


def completed(
    headers: Mapping[bytes, bytes], index: Mapping[bytes, Mapping[bytes, bytes]]
) -> Mapping[bytes, bytes]:
    """Return a request's headers with those that it names, if they are known."""
    kept = index.get(headers.get(_NAME, b""))
    return headers if kept is None else {**kept, **headers}


def answered(
    asked: Mapping[bytes, bytes], answer: Mapping[bytes, bytes], *, known: bool
) -> Mapping[bytes, bytes]:
    """Return an answer's headers: few for a sender of few.

    Args:
        asked: the request's headers.
        answer: the headers of the answer; Flower's client does not read their content type.
        known: the sender has been accepted, so what it sent in full is kept.
    """
    if _NAME not in asked:
        return answer
    few = {name: value for name, value in answer.items() if name != b"content-type"}
    return {**few, _NAME: _ASKED} if known and asked[_NAME] == _ASKED else few
