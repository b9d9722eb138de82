"""Small stand-ins: a grid without clients, grids with faults, hand-made replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.submodels.axes import mlp_axes
from flower_ist.wire.layout import layout_from_text
from flower_ist.wire.packing import unpack
from flower_ist.wire.protocol import LAYOUT_KEY, PACKED_KEY

DIMS = [3, 8, 6, 2]
AXES = mlp_axes(mlp_shapes(DIMS))


class SilentGrid(InProcessGrid):
    """A grid whose nodes are connected but never answer."""

    def __init__(self, num_nodes: int) -> None:
        super().__init__(ClientApp(), num_nodes)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        list(messages)
        return []


class LossyGrid(InProcessGrid):
    """An in-process grid that loses the replies that ``lose(message)`` names."""

    lose: Callable[[Message], bool]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return super().send_and_receive([m for m in messages if not self.lose(m)], timeout=timeout)


def reply(
    message: Message, tensors: dict[str, np.ndarray], metrics: dict[str, float] | None = None
) -> Message:
    """Answer a message with ordinary arrays and 10 examples."""
    arrays = ArrayRecord({name: Array(np.asarray(tensor)) for name, tensor in tensors.items()})
    record = MetricRecord({"num-examples": 10, **(metrics or {})})
    return Message(RecordDict({"arrays": arrays, "metrics": record}), reply_to=message)


def model(seed: int = 0) -> tuple[dict[str, np.ndarray], ArrayRecord]:
    weights = initial_weights(DIMS, seed)
    return weights, ArrayRecord({name: Array(w) for name, w in weights.items()})


def configured(
    num_nodes: int = 2, server_round: int = 1, **options: object
) -> tuple[ISTStrategy, dict[str, np.ndarray], list[Message]]:
    """Return a strategy that has sent its slices, the model, and the messages."""
    options = {"min_train_nodes": 1, "min_available_nodes": 1, **options}
    strategy = ISTStrategy(AXES, **options)  # type: ignore[arg-type]
    weights, record = model()
    messages = strategy.configure_train(
        server_round, record, ConfigRecord({"local-steps": 7}), SilentGrid(num_nodes)
    )
    return strategy, weights, list(messages)


def arrays_of(message: Message) -> dict[str, np.ndarray]:
    content = message.content
    record = content.array_records["arrays"]
    if PACKED_KEY in record:
        text = content.config_records["config"][LAYOUT_KEY]
        assert isinstance(text, str)
        return unpack(record[PACKED_KEY], layout_from_text(text))
    return {name: array.numpy() for name, array in record.items()}


def merged(strategy: ISTStrategy, replies: list[Message]) -> dict[str, np.ndarray]:
    record, _ = strategy.aggregate_train(1, replies)
    assert record is not None
    return {name: array.numpy() for name, array in record.items()}
