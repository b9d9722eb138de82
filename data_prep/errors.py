"""What made another library fail, as part of a sentence."""

from __future__ import annotations

from urllib.error import URLError

from flower_ist.errors import first_line

_NETWORK = ("ConnectError", "ConnectionError", "OfflineModeIsEnabled", "ProxyError", "SSLError")
"""Errors of the libraries that download, by name: they may not be installed."""


def cause_of(err: BaseException) -> str:
    """Return the reason of an error that a library may have wrapped in others of its own.

    Only an error of the network advises to look there.
    """
    chain = [err]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) and inner not in chain:
        chain.append(inner)
    if any(_of_network(each) for each in chain):
        return f"{first_line(err)}; check the network"
    # A wrapper names what it was doing, and its cause what went wrong.
    return first_line(chain[0] if chain[0].__cause__ is None else _deepest(err))


def _deepest(err: BaseException) -> BaseException:
    return err if err.__cause__ is None else _deepest(err.__cause__)


def _of_network(err: BaseException) -> bool:
    known = isinstance(err, ConnectionError | TimeoutError | URLError)
    return known or any(kind.__name__ in _NETWORK for kind in type(err).__mro__)
