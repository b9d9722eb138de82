"""One chain of filters between a strategy and Flower's Grid.

    grid = FilteredGrid(grid, [meter.outcomes, Admission(...), Packed("int8", "int8"), meter])

Filters run in list order: messages pass through the first filter first, and replies pass through
it last, as with the ``mods=[...]`` of a ClientApp. Any strategy runs on the chain unchanged.

Messages and replies pass through one at a time: a message is made, packed and sent before the next
one is made, and with :class:`OneByOne` a reply is merged before the next one is unpacked. So the
server's memory holds the model, a slice, and what is on its way, however many clients there are.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Generic, TypeVar

from flwr.app import Error, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from flower_ist.grids.fetching import Fetcher
from flower_ist.wire._flwr import NodeInfo, Run, is_http_grid, with_metadata
from flower_ist.wire.protocol import REFUSED_CODE, ROUND_KEY
from flower_ist.wire.records import configs_in

# Between two looks for replies: a tenth of the time waited so far, in these bounds. The upper one
# is Flower's own.
_PAUSE_SHARE = 0.1
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 3.0


_Made = TypeVar("_Made")


class PerContent(Generic[_Made]):
    """What a function makes of a message's content; FedAvg sends the same one to all clients.

    Only the last few contents are kept, so that a round's slices are not.

    Args:
        make: is called once for a content that comes several times; two may take turns.
    """

    def __init__(self, make: Callable[[RecordDict], _Made]) -> None:
        self._make = make
        self._made: deque[tuple[RecordDict, _Made]] = deque(maxlen=2)

    def __call__(self, content: RecordDict) -> _Made:
        """Return what was made of this content, or make it."""
        for known, made in self._made:
            if known is content:
                return made
        made = self._make(content)
        self._made.append((content, made))
        return made


class Filter:
    """One step of a chain. A subclass overrides what it needs."""

    def nodes(self, grid: Grid) -> Iterable[int]:
        """Return the ids of the nodes that a strategy may use.

        Args:
            grid: everything behind this filter.
        """
        return grid.get_node_ids()

    def down(self, messages: Iterable[Message]) -> Iterable[Message]:
        """Return the messages to send to the clients in place of these, best as a generator."""
        return messages

    def up(self, replies: Iterable[Message]) -> Iterable[Message]:
        """Return the replies to give to the strategy in place of these, best as a generator."""
        return replies

    def exchange(
        self, grid: Grid, messages: Iterable[Message], timeout: float | None
    ) -> Iterable[Message]:
        """Send messages and return their replies; by default :meth:`down`, wait, :meth:`up`.

        Args:
            grid: everything behind this filter.
            messages: the strategy's messages.
            timeout: seconds to wait for replies; None waits without a limit.
        """
        return self.up(grid.send_and_receive(self.down(messages), timeout=timeout))


class OneByOne(list[Message]):
    """Messages to whose replies a strategy wants an iterator: each as it comes, and only once.

    A strategy that returns them from ``configure_train`` must read the replies in one loop. To any
    other list a chain answers with a list, as Flower's own grids do.
    """


class FilteredGrid(Grid):
    """A Grid with filters in front of it.

    Args:
        grid: the grid to wrap.
        filters: in the order in which messages pass through them on their way to the clients.
    """

    def __init__(self, grid: Grid, filters: Sequence[Filter]) -> None:
        if type(grid).__module__.startswith("flwr."):
            grid = _Arriving(grid)
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

    def pull_messages(  # type: ignore[override]  # Flower 1.43 renames it
        self,
        reply_to_message_ids: Iterable[str] | None = None,
        *,
        message_ids: Iterable[str] | None = None,
    ) -> Iterable[Message]:
        """Fetch the available replies, through the filters.

        Args:
            reply_to_message_ids: ids of the messages; None, for all, is what a Grid of Flower takes
                from 1.43 on.
            message_ids: the same, as it is called in Flower before 1.43.
        """
        asked = reply_to_message_ids if message_ids is None else message_ids
        return self._pulled(asked)

    def _pulled(self, asked: Iterable[str] | None) -> Iterable[Message]:
        # By position: the name differs between the versions of Flower.
        return self._grid.pull_messages(asked)  # type: ignore[arg-type]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and wait for the replies, both through the filters.

        To :class:`OneByOne` and to an iterator it answers with an iterator when the first reply has
        come, and to a list with a list.
        """
        whole = isinstance(messages, list) and not isinstance(messages, OneByOne)
        replies = iter(self._grid.send_and_receive(iter(messages), timeout=timeout))
        if whole:
            return list(replies)
        # Everything is sent now, whether the strategy reads the replies or not; if there are none,
        # it is told so by an empty list, which Flower's strategies look for.
        first = next(replies, None)
        return [] if first is None else chain([first], replies)


class _Step(FilteredGrid):
    """A Grid behind one filter."""

    def __init__(self, grid: Grid, step: Filter) -> None:
        self._grid = grid
        self._step = step

    def get_node_ids(self) -> Iterable[int]:
        return self._step.nodes(self._grid)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(list(self._step.down(messages)))

    def _pulled(self, asked: Iterable[str] | None) -> Iterable[Message]:
        return list(self._step.up(super()._pulled(asked)))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self._step.exchange(self._grid, messages, timeout)


class _Arriving(FilteredGrid):
    """One of Flower's grids, whose own ``send_and_receive`` holds all messages, then all replies.

    Here a message is pushed before the next one is made, and replies are handed on when they come.
    Flower's HttpGrid looks for them every 3 s; the first looks are closer together here, so that a
    round of quick clients does not wait for the next look. And there no reply holds up the others.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._fetcher = Fetcher(grid.pull_messages) if is_http_grid(grid) else None

    def _pulled(self, asked: Iterable[str] | None) -> Iterable[Message]:
        if self._fetcher is None or asked is None:
            return super()._pulled(asked)
        return self._fetcher.pull_messages(asked)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        waiting: set[str] = set()
        for message in messages:
            # Flower names a message that it could not push None, or in later versions "".
            waiting.update(filter(None, self._grid.push_messages([message])))
        start = time.monotonic()
        while waiting:
            arrived = deque(self._pulled(waiting))
            waiting.difference_update(reply.metadata.reply_to_message_id for reply in arrived)
            while arrived:
                yield arrived.popleft()
            passed = time.monotonic() - start
            left = math.inf if timeout is None else timeout - passed
            if left <= 0:
                return
            if waiting:
                pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, passed * _PAUSE_SHARE))
                time.sleep(min(pause, left))


def category(message: Message) -> str:
    """Return the kind of a message's type: ``train`` of ``train.my_action``."""
    return message.metadata.message_type.split(".")[0]


def is_train(message: Message) -> bool:
    """Return whether a message is a train message or a reply to one."""
    return category(message) == MessageType.TRAIN


def round_of(message: Message, default: int = 0) -> int:
    """Return the round named in a message's config; all of Flower's strategies put it there."""
    if message.has_content():
        for config in configs_in(message.content).values():
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


def refused(reply: Message, reason: str, code: int = REFUSED_CODE) -> Message:
    """Return an error in place of a reply, addressed as the reply is."""
    return with_metadata(Message(Error(code, reason), reply_to=reply), reply.metadata)
