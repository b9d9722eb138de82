"""A Grid that hands everything on to another one: the base of grids that do one thing more."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from flower_ist.wire._flwr import NodeInfo, Run

_ROUND_KEY = "server-round"


def category(message: Message) -> str:
    """Return the kind of a message's type: ``train`` of ``train.my_action``."""
    return message.metadata.message_type.split(".")[0]


def is_train(message: Message) -> bool:
    """Return whether a message asks for training, or answers that."""
    return category(message) == MessageType.TRAIN


def round_of(message: Message, default: int = 0) -> int:
    """Return the round that a message's config names, as all of Flower's strategies do."""
    if message.has_content():
        for config in message.content.config_records.values():
            named = config.get(_ROUND_KEY)
            if isinstance(named, int):
                return named
    return default


def with_content(message: Message, content: RecordDict) -> Message:
    """Return a message with another content, to the same node, of the same type and group."""
    metadata = message.metadata
    return Message(
        content,
        metadata.dst_node_id,
        metadata.message_type,
        ttl=metadata.ttl,
        group_id=metadata.group_id,
    )


class GridWrapper(Grid):
    """Wrap a Grid. Subclasses override what they change."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """Hand on to the wrapped Grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The wrapped Grid's run."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Hand on to the wrapped Grid."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Hand on to the wrapped Grid."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Hand on to the wrapped Grid."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand on to the wrapped Grid."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand on to the wrapped Grid."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Hand on to the wrapped Grid."""
        return self._grid.send_and_receive(messages, timeout=timeout)
