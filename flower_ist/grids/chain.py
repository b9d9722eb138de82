"""One chain of filters between a strategy and the Grid that Flower gives.

    grid = FilteredGrid(grid, [meter.outcomes, Admission(...), Packed("int8", "int8"), meter])

The order is that of the list: messages pass the first filter first, replies pass it last, as with
the ``mods=[...]`` of a ClientApp. Any strategy runs on it unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from flower_ist.wire._flwr import NodeInfo, Run
from flower_ist.wire.protocol import ROUND_KEY


class Filter:
    """One step of a chain. A subclass overrides what it needs."""

    def nodes(self, grid: Grid) -> Iterable[int]:
        """Return the ids of the nodes that a strategy may ask.

        Args:
            grid: all that comes behind this filter.
        """
        return grid.get_node_ids()

    def down(self, messages: list[Message]) -> list[Message]:
        """Return what goes on to the clients in the messages' place."""
        return messages

    def up(self, replies: list[Message]) -> list[Message]:
        """Return what the strategy gets in the replies' place."""
        return replies

    def exchange(self, grid: Grid, messages: list[Message], timeout: float | None) -> list[Message]:
        """Send messages and return their replies; by default :meth:`down`, wait, :meth:`up`.

        Args:
            grid: all that comes behind this filter.
            messages: of the strategy.
            timeout: seconds to wait for replies; without a limit if None.
        """
        return self.up(list(grid.send_and_receive(self.down(messages), timeout=timeout)))


class FilteredGrid(Grid):
    """A Grid with filters in front of it.

    Args:
        grid: the grid to wrap.
        filters: in the order in which messages pass them on their way to the clients.
    """

    def __init__(self, grid: Grid, filters: Sequence[Filter]) -> None:
        for step in reversed(filters):
            grid = _Step(grid, step)
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """Hand on."""
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
        """Hand on."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that all filters let through."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Hand on; no filter is asked."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages through the filters, without waiting."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch the replies that are there, through the filters."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and wait for the replies, both through the filters."""
        return self._grid.send_and_receive(messages, timeout=timeout)


class _Step(FilteredGrid):
    """A Grid behind one filter."""

    def __init__(self, grid: Grid, step: Filter) -> None:
        self._grid = grid
        self._step = step

    def get_node_ids(self) -> Iterable[int]:
        return self._step.nodes(self._grid)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(self._step.down(list(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._step.up(list(self._grid.pull_messages(message_ids)))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self._step.exchange(self._grid, list(messages), timeout)


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
            named = config.get(ROUND_KEY)
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
