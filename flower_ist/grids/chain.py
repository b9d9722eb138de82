"""One chain of filters between a strategy and Flower's Grid.

    grid = FilteredGrid(grid, [meter.outcomes, Admission(...), Packed("int8", "int8"), meter])

Filters run in list order: messages pass through the first filter first, and replies pass through
it last, as with the ``mods=[...]`` of a ClientApp. Any strategy runs on the chain unchanged.
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
        """Return the ids of the nodes that a strategy may use.

        Args:
            grid: everything behind this filter.
        """
        return grid.get_node_ids()

    def down(self, messages: list[Message]) -> list[Message]:
        """Return the messages to send to the clients in place of these."""
        return messages

    def up(self, replies: list[Message]) -> list[Message]:
        """Return the replies to give to the strategy in place of these."""
        return replies

    def exchange(self, grid: Grid, messages: list[Message], timeout: float | None) -> list[Message]:
        """Send messages and return their replies; by default :meth:`down`, wait, :meth:`up`.

        Args:
            grid: everything behind this filter.
            messages: the strategy's messages.
            timeout: seconds to wait for replies; None waits without a limit.
        """
        return self.up(list(grid.send_and_receive(self.down(messages), timeout=timeout)))


class FilteredGrid(Grid):
    """A Grid with filters in front of it.

    Args:
        grid: the grid to wrap.
        filters: in the order in which messages pass through them on their way to the clients.
    """

    def __init__(self, grid: Grid, filters: Sequence[Filter]) -> None:
        for step in reversed(filters):
            grid = _Step(grid, step)
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """Delegate to the wrapped Grid."""
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
        """Delegate to the wrapped Grid, bypassing the filters."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages through the filters, without waiting."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch the available replies, through the filters."""
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
    """Return whether a message is a train message or a reply to one."""
    return category(message) == MessageType.TRAIN


def round_of(message: Message, default: int = 0) -> int:
    """Return the round named in a message's config; all of Flower's strategies put it there."""
    if message.has_content():
        for config in message.content.config_records.values():
            named = config.get(ROUND_KEY)
            if isinstance(named, int):
                return named
    return default


def with_content(message: Message, content: RecordDict) -> Message:
    """Return a message with other content, to the same node, of the same type and group."""
    metadata = message.metadata
    return Message(
        content,
        metadata.dst_node_id,
        metadata.message_type,
        ttl=metadata.ttl,
        group_id=metadata.group_id,
    )
