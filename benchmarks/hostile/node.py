"""A registered node that answers as it likes, by Flower's own connection, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response

from client_app.app import app as client_app
from flower_ist.grids.chain import is_train
from flower_ist.wire._flwr import TaskIdentity, set_message_id
from hostile.federation import Federation

Send = Callable[[Message, ObjectTree, float], tuple[set[str], str]]
PushObject = Callable[[int, str, str, bytes], None]
Upload = Callable[[Message, Send, PushObject], None]
Answer = Callable[[Message, Context], Message]


def honest(message: Message, context: Context) -> Message:
    """Answer as the app does."""
    return client_app(message, context)


def upload(reply: Message, send: Send, push_object: PushObject) -> None:
    """Upload a reply as a SuperNode does."""
    wanted, session = send(reply, get_object_tree(reply), 1.0)
    for object_id, part in get_all_nested_objects(reply).items():
        if object_id in wanted:
            push_object(reply.metadata.run_id, session, object_id, part.deflate())


class HostileNode:
    """A node with a registered key, in a thread.

    Args:
        federation: it belongs to.
        number: which of the nodes it is.
        answer: makes the reply to a message.
        upload: brings it to the server.
        attacks: the messages at which it does harm.

    Attributes:
        asked: how many of these it was sent.
        errors: what it was refused with.
    """

    def __init__(
        self,
        federation: Federation,
        number: int,
        answer: Answer = honest,
        upload: Upload = upload,
        attacks: Callable[[Message], bool] = is_train,
    ) -> None:
        self._federation, self._number = federation, number
        self._answer, self._upload, self._attacks = answer, upload, attacks
        self._over = threading.Event()
        self._online = threading.Event()
        self.asked = 0
        self._thread = threading.Thread(target=self._live, daemon=True)
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._online.wait(300):
            raise TimeoutError("The hostile node did not get in.")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _live(self) -> None:
        while not self._over.is_set():
            # Whatever it is told, it comes back.
            with suppress(Exception, RunNotRunningException):
                self._work()
            time.sleep(1.0)

    def _work(self) -> None:
        folder = self._federation.node(self._number)
        key = load_ssh_private_key((folder / "node.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{folder} holds another kind of key.")
        with http_request_response(
            f"127.0.0.1:{self._federation.port}",
            insecure=False,
            root_certificates=(folder / "ca.crt").read_bytes(),
            authentication_keys=(key, key.public_key()),
        ) as connection:
            node_id, receive, send, _, _, pull_object, push_object, confirm = connection
            context = Context(
                run_id=0,
                node_id=node_id,
                node_config={"data-path": str(self._shard())},
                state=RecordDict(),
                run_config={},
            )
            self._online.set()
            while not self._over.is_set():
                received = receive()
                if received is None:
                    time.sleep(1.0)
                    continue
                message = _whole(*received, pull_object, confirm)
                TaskIdentity.run_id = message.metadata.run_id
                TaskIdentity.node_id = node_id
                self.asked += self._attacks(message)
                reply = self._answer(message, context)
                set_message_id(reply, reply.object_id)
                try:
                    self._upload(reply, send, push_object)
                except Exception as error:  # the point of a hostile node
                    self.errors.append(str(error)[:200])

    def _shard(self) -> Path:
        return self._federation.shards / f"client-{self._number}"


def _whole(
    message: Message,
    tree: ObjectTree,
    pull_object: Callable[[int, str], bytes],
    confirm: Callable[[int, str], None],
) -> Message:
    """Fetch a message's content."""
    run_id, message_id = message.metadata.run_id, message.metadata.message_id
    parts = pull_objects(
        [part.object_id for part in iterate_object_tree(tree)],
        pull_object_fn=lambda object_id: pull_object(run_id, object_id),
    )
    confirm(run_id, message_id)
    whole = inflate_object_from_contents(message_id, parts)
    if not isinstance(whole, Message):
        raise TypeError("That was no message.")
    set_message_id(whole, message_id)
    return whole
