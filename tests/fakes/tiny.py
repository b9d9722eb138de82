"""A federation without data: clients that add 1 to what they get, and a grid that takes notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.wire.mod import packed_mod
from flower_ist.wire.protocol import CLIENT_NAME_KEY, FACTS_RECORD
from flower_ist.wire.size import payload_bytes, wire_bytes

# Two arrays of 6 and 2 numbers: 32 bytes of payload in float32.
WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
REPORT = {
    "num-examples": 10,
    "local-steps": 5,
    "examples-trained": 20,
    "image-bytes": 2000,
    "image-file-bytes": 1500,
    "masked-image-bytes": 1000,
    "token-bytes": 80,
}


def model() -> ArrayRecord:
    return ArrayRecord({name: Array(weight) for name, weight in WEIGHTS.items()})


def partition_of(context: Context) -> int:
    return int(context.node_config["partition-id"])


def tiny_app(
    report: Callable[[int], Mapping[str, Any]] = lambda _: REPORT,
    fails: Callable[[int], bool] = lambda _: False,
    name: Callable[[int], str] = "client-{}".format,
) -> ClientApp:
    """Make a ClientApp; what it reports, whether it fails and its name follow from the partition.

    A train message brings its arrays plus 1 plus a tenth of the partition.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = partition_of(context)
        if fails(partition):
            raise RuntimeError(f"client {partition} is broken")
        arrays = message.content.array_records["arrays"]
        shift = np.float32(1 + partition / 10)
        trained = ArrayRecord({n: Array(array.numpy() + shift) for n, array in arrays.items()})
        metrics = MetricRecord(dict(report(partition)))
        return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 10, "accuracy": 0.5})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        facts = ConfigRecord({CLIENT_NAME_KEY: name(partition_of(context)), "num-examples": 10})
        return Message(RecordDict({FACTS_RECORD: facts}), reply_to=message)

    return app


def numpy_app(name: Callable[[int], str] = "client-{}".format) -> ClientApp:
    """Clients that change what they get by noise that follows from round and partition."""
    app = ClientApp(mods=[packed_mod])
    tiny = tiny_app(name=name)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        server_round = int(str(message.content.config_records["config"]["server-round"]))
        generator = np.random.default_rng([server_round, partition_of(context)])
        trained = {
            name: Array((0.9 * a.numpy() + generator.normal(size=a.shape)).astype(np.float32))
            for name, a in message.content.array_records["arrays"].items()
        }
        metrics = MetricRecord({"num-examples": 10})
        content = RecordDict({"arrays": ArrayRecord(trained), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return tiny(message, context)

    return app


class NotingGrid(InProcessGrid):
    """An in-process grid that notes each message's type, node and size, and may lose some.

    ``notes`` holds (round, direction, type, partition, wire bytes, payload bytes).
    """

    def __init__(
        self, app: ClientApp, num_clients: int, lose: Callable[[str, int], bool] | None = None
    ) -> None:
        super().__init__(app, num_clients)
        self.lose = lose
        self.notes: list[tuple[int, str, str, int, int, int]] = []
        self._round = 0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        nodes = list(self.get_node_ids())
        replies = []
        for message in messages:
            partition = nodes.index(message.metadata.dst_node_id)
            for config in message.content.config_records.values():
                self._round = int(str(config.get("server-round", self._round)))
            self._note("down", partition, message)
            if self.lose is not None and self.lose(message.metadata.message_type, partition):
                continue
            for reply in super().send_and_receive([message], timeout=timeout):
                self._note("up", partition, reply)
                replies.append(reply)
        return replies

    def _note(self, direction: str, partition: int, message: Message) -> None:
        kind = message.metadata.message_type
        sizes = (wire_bytes(message), payload_bytes(message))
        self.notes.append((self._round, direction, kind, partition, *sizes))
