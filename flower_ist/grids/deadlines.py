"""Late replies: which count, and what happens to the others.

The rule: a reply counts if it has arrived when its round closes, and all valid replies for one
slice that have arrived are averaged. Flower's ``Grid.send_and_receive`` closes at its timeout and
never fetches later replies, so a late reply is dropped, whatever strategy runs. Its bytes were
still sent: :class:`flower_ist.grids.metered.Meter` in front of it counts them.

Without more, a client that is late once may be late forever: messages wait for a client for up to
12 hours, and a client that was away works through those of closed rounds first. With
:class:`Deadlines` a message lives only as long as its round is open. It can also close a round
early when more clients train than there are slices: Bonawitz et al., "Towards Federated Learning at
Scale", MLSys 2019, https://arxiv.org/abs/1902.01046, end a round this way once enough clients have
reported. Here, in contrast, every slice must be back.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from itertools import chain

from flwr.app import Message
from flwr.serverapp import Grid

from flower_ist.grids.chain import Filter, is_train
from flower_ist.wire.protocol import LIFE_AFTER_TIMEOUT, PRIOR_RECORD
from flower_ist.wire.records import arrays_in

_POLL_SECONDS = 0.25


class Deadlines(Filter):
    """Let messages expire with their round, and close rounds early.

    With ``close_early``, training ends as soon as each distinct piece of work that was sent has a
    reply without an error and ``min_replies`` such replies have arrived. Pieces are distinguished
    by the model's arrays: all clients of one slice get the same arrays, and so do all clients of
    FedAvg. So redundant clients of a slice are not waited for. A message without such arrays, such
    as one that asks for statistics, is a piece of its own: no other client can answer it. Which
    replies are used depends on the clients' speed, so such a run is not reproducible bit for bit. A
    client that is still busy with a closed round answers that one before the next.

    Args:
        close_early: do not wait for all training clients.
        min_replies: fewest replies without an error that close a round.
    """

    def __init__(self, *, close_early: bool = False, min_replies: int = 1) -> None:
        self.close_early = close_early
        self.min_replies = min_replies

    def exchange(
        self, grid: Grid, messages: Iterable[Message], timeout: float | None
    ) -> Iterable[Message]:
        """Send messages and return the replies that have arrived when the round closes."""
        if timeout is not None:
            messages = _mortal(messages, timeout + LIFE_AFTER_TIMEOUT)
        if not self.close_early:
            return super().exchange(grid, messages, timeout)
        messages = iter(messages)
        first = next(messages, None)
        if first is None:
            return []
        messages = chain([first], messages)
        if not is_train(first):
            return super().exchange(grid, messages, timeout)
        return self._until_enough(grid, messages, timeout)

    def _until_enough(
        self, grid: Grid, messages: Iterable[Message], timeout: float | None
    ) -> list[Message]:
        piece_of: dict[str, bytes] = {}
        for message in messages:
            piece = _piece(message)
            grid.push_messages([message])  # this sets its id
            piece_of[message.metadata.message_id] = piece
        start = time.monotonic()
        waiting, good = set(piece_of), set[str]()
        replies: list[Message] = []
        while True:
            for reply in grid.pull_messages(waiting):
                replies.append(reply)
                waiting.discard(reply.metadata.reply_to_message_id)
                if not reply.has_error():
                    good.add(reply.metadata.reply_to_message_id)
            done = {piece_of[message_id] for message_id in good} == set(piece_of.values())
            late = timeout is not None and time.monotonic() - start >= timeout
            if (done and len(good) >= self.min_replies) or late or not waiting:
                return replies
            time.sleep(_POLL_SECONDS)


def _mortal(messages: Iterable[Message], life: float) -> Iterator[Message]:
    """Let messages expire so many seconds after now, when they are sent."""
    for message in messages:
        # A message's life begins when it is created.
        message.metadata.ttl = time.time() - message.metadata.created_at + life
        yield message


def _piece(message: Message) -> bytes:
    """Return what identifies a piece of work: a digest of the model's arrays.

    The token prior is excluded: it goes only to those clients of a slice that do not have it yet.
    """
    records = arrays_in(message.content)
    work = [record for key, record in records.items() if key != PRIOR_RECORD]
    if not work:
        return str(message.metadata.dst_node_id).encode()
    digest = hashlib.blake2b(digest_size=16)
    for record in work:
        for name, array in record.items():
            digest.update(f"{name} {array.dtype} {array.shape};".encode())
            digest.update(array.data)
    return digest.digest()
