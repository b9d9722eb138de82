"""Count the traffic of a Grid, for any strategy, unchanged.

Wrap the grid that a ServerApp gets and pass the wrapper to the strategy:

    grid = MeteredGrid(grid)
    strategy.start(grid=grid, ...)

or, with other filters, put the meter's two halves into a chain: traffic is counted next to the
network, and replies are noted next to the strategy:

    meter = Meter()
    grid = FilteredGrid(grid, [meter.outcomes, Packed("int8", "int8"), meter, Answers()])

Bytes are those of a message's serialized objects (:func:`flower_ist.wire.size.wire_bytes`). A
client uploads its reply even when its round has closed. The meter fetches it around each later
exchange, which Flower never does, and counts its bytes in the round that is then open.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flwr.app import Message, MessageType, Metadata, RecordDict
from flwr.serverapp import Grid

from flower_ist.grids.answers import Answers
from flower_ist.grids.chain import Filter, FilteredGrid, PerContent, category, is_train, round_of
from flower_ist.wire.protocol import INPUT_METRICS, STEPS_KEY
from flower_ist.wire.records import metrics_in
from flower_ist.wire.reported import finite, is_superlink_error, last_line
from flower_ist.wire.size import payload_bytes, wire_bytes

_MOST = 2.0**53
# At most this many unanswered messages are remembered: the last ones sent.
_MOST_UNANSWERED = 1000


@dataclass
class Traffic:
    """Bytes and messages of one kind: down is server -> client, up is client -> server."""

    wire_bytes_down: int = 0
    wire_bytes_up: int = 0
    payload_bytes_down: int = 0
    payload_bytes_up: int = 0
    messages_down: int = 0
    messages_up: int = 0

    def add(self, other: Traffic) -> None:
        """Add another count to this one."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class RoundTraffic:
    """All traffic of one round, and its outcome.

    Attributes:
        total: sums over all messages.
        by_node: node id -> its messages.
        by_type: message type (train, evaluate, query) -> its messages.
        inputs: sums of the amounts that the clients reported reading, by run log field.
        local_steps: largest number of local steps that a client reported.
        selected: nodes that got a train message; replied: those whose reply reached the strategy
            without an error.
        failures: node id -> the error that came in place of its reply; bounded: node id -> the
            examples that it told, and for how many it counts; gone: nodes that the SuperLink lost.
        train_seconds: from sending train messages to having the replies, without what the strategy
            did in between with those that had come.
        evaluate_seconds: the same for evaluate messages.
        sent_at: clock time at which the first train messages were sent.
    """

    total: Traffic = field(default_factory=Traffic)
    by_node: dict[int, Traffic] = field(default_factory=dict)
    by_type: dict[str, Traffic] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(INPUT_METRICS.values(), 0))
    local_steps: int = 0
    selected: set[int] = field(default_factory=set)
    replied: set[int] = field(default_factory=set)
    failures: dict[int, str] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    bounded: dict[int, tuple[float, float]] = field(default_factory=dict)
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    sent_at: float | None = None

    def count(self, node_id: int, message_type: str, traffic: Traffic) -> None:
        """Add one message to the sums."""
        self.total.add(traffic)
        self.by_node.setdefault(node_id, Traffic()).add(traffic)
        self.by_type.setdefault(message_type, Traffic()).add(traffic)


class Meter(Filter):
    """Count bytes by round, node, direction and type. It belongs next to the network.

    Late replies to messages of ``send_and_receive`` are counted as the module docstring says;
    replies to pushed messages are left to their sender to pull. The meter waits for no reply, but
    fetches one whose upload has begun to its end, as all of Flower's grids do.

    Attributes:
        rounds: what has been counted, by round.
        started: clock time at which counting began.
        outcomes: the filter that notes who was asked and who replied; the first of a chain.
        current_round: the round to which messages without a round (queries) are counted.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.rounds: dict[int, RoundTraffic] = {}
        self.current_round = 0
        self.outcomes = Outcomes(self)
        # message id -> when the message, and with it a reply, expires (seconds since 1970)
        self._unanswered: dict[str, float] = {}

    def traffic(self, server_round: int) -> RoundTraffic:
        """Return what has been counted for a round so far."""
        return self.rounds.setdefault(server_round, RoundTraffic())

    def down(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Count messages on their way to the clients."""
        # FedAvg sends the same content to all clients: its objects are serialized only once here.
        current = list[Message]()
        sizes = PerContent(lambda _: (wire_bytes(current[0]), payload_bytes(current[0])))
        for message in messages:
            self.current_round = round_of(message, self.current_round)
            current[:] = [message]
            wire, payload = sizes(message.content)
            self.traffic(self.current_round).count(
                message.metadata.dst_node_id,
                message.metadata.message_type,
                Traffic(wire_bytes_down=wire, payload_bytes_down=payload, messages_down=1),
            )
            yield message

    def up(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Count replies."""
        for reply in replies:
            self._count_up(reply)
            yield reply

    def exchange(
        self, grid: Grid, messages: Iterable[Message], timeout: float | None
    ) -> Iterator[Message]:
        """Count messages, send them, wait for the replies and count them."""
        sent: list[Metadata] = []  # a message's id is set when it is pushed
        answered: set[str] = set()

        def noted(messages: Iterable[Message]) -> Iterator[Message]:
            for message in messages:
                sent.append(message.metadata)
                yield message
            self._count_late(grid)

        try:
            outgoing = noted(self.down(messages))
            for reply in self.up(grid.send_and_receive(outgoing, timeout=timeout)):
                answered.add(reply.metadata.reply_to_message_id)
                yield reply
            self._count_late(grid)
        finally:
            self._remember_unanswered(sent, answered)

    def _count_late(self, grid: Grid) -> None:
        """Fetch replies to closed rounds that have since arrived, only to count their bytes."""
        now = time.time()
        self._unanswered = {i: end for i, end in self._unanswered.items() if end > now}
        if not self._unanswered:
            return
        for reply in grid.pull_messages(list(self._unanswered)):
            self._unanswered.pop(reply.metadata.reply_to_message_id, None)
            self._count_up(reply)

    def _remember_unanswered(self, sent: list[Metadata], answered: set[str]) -> None:
        for metadata in sent:
            if metadata.message_id and metadata.message_id not in answered:
                self._unanswered[metadata.message_id] = metadata.created_at + metadata.ttl
        for message_id in list(self._unanswered)[:-_MOST_UNANSWERED]:
            del self._unanswered[message_id]

    def _count_up(self, reply: Message) -> None:
        if is_superlink_error(reply):
            return  # nothing came from the client
        self.traffic(self.current_round).count(
            reply.metadata.src_node_id,
            reply.metadata.message_type,
            Traffic(
                wire_bytes_up=wire_bytes(reply),
                payload_bytes_up=payload_bytes(reply),
                messages_up=1,
            ),
        )


class Outcomes(Filter):
    """Note who was asked to train, who replied, and the amounts read that the replies report.

    As the first filter of a chain it sees what the strategy sees: a reply that another filter
    refused is a failure here.

    Args:
        meter: the meter to whose rounds this is added.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def down(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Note who is asked to train."""
        for message in messages:
            if is_train(message):
                traffic = self._traffic(message)
                traffic.selected.add(message.metadata.dst_node_id)
            yield message

    def up(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Note who replied, and with what."""
        for reply in replies:
            if is_train(reply):
                self._note(reply)
            yield reply

    def exchange(
        self, grid: Grid, messages: Iterable[Message], timeout: float | None
    ) -> Iterator[Message]:
        """Note both, and how long the exchange took, without what is done with the replies."""
        start = time.monotonic()
        kinds: set[str] = set()

        def noted(messages: Iterable[Message]) -> Iterator[Message]:
            for message in messages:
                if not kinds and is_train(message):
                    traffic = self._traffic(message)
                    traffic.sent_at = start if traffic.sent_at is None else traffic.sent_at
                kinds.add(category(message))
                yield message

        for reply in super().exchange(grid, noted(messages), timeout):
            self._add_seconds(kinds, time.monotonic() - start)
            yield reply
            start = time.monotonic()
        self._add_seconds(kinds, time.monotonic() - start)

    def _note(self, reply: Message) -> None:
        traffic = self._meter.traffic(self._meter.current_round)
        node_id = reply.metadata.src_node_id
        if reply.has_error():
            traffic.failures[node_id] = last_line(reply.error.reason)
            traffic.gone |= {node_id} if is_superlink_error(reply) else set()
        else:
            traffic.replied.add(node_id)
            _add_inputs(traffic, reply.content)

    def _add_seconds(self, kinds: set[str], seconds: float) -> None:
        traffic = self._meter.traffic(self._meter.current_round)
        if MessageType.TRAIN in kinds:
            traffic.train_seconds += seconds
        elif MessageType.EVALUATE in kinds:
            traffic.evaluate_seconds += seconds

    def _traffic(self, message: Message) -> RoundTraffic:
        self._meter.current_round = round_of(message, self._meter.current_round)
        return self._meter.traffic(self._meter.current_round)


class MeteredGrid(FilteredGrid):
    """A Grid that counts all traffic by round, node, direction and type.

    Attributes:
        meter: does the counting.
    """

    def __init__(self, grid: Grid) -> None:
        self.meter = Meter()
        super().__init__(grid, [self.meter.outcomes, self.meter, Answers()])

    @property
    def rounds(self) -> dict[int, RoundTraffic]:
        """What has been counted, by round."""
        return self.meter.rounds

    def traffic(self, server_round: int) -> RoundTraffic:
        """Return what has been counted for a round so far."""
        return self.meter.traffic(server_round)


def _add_inputs(traffic: RoundTraffic, content: RecordDict) -> None:
    for record in metrics_in(content).values():
        for metric, log_field in INPUT_METRICS.items():
            traffic.inputs[log_field] += _count(record.get(metric))
        traffic.local_steps = max(traffic.local_steps, _count(record.get(STEPS_KEY)))


def _count(value: object) -> int:
    """Return a count that a client reports: 0 if it is invalid, capped if it is too large."""
    return int(min(max(0.0, finite(value) or 0.0), _MOST))
