"""Late replies: which count, and what becomes of the others.

The rule: a reply counts if it is there when its round closes, and all good replies of one slice
that are there are averaged. Flower's ``Grid.send_and_receive`` closes at its timeout and never
fetches what comes later, so a late reply is dropped, whatever strategy runs. Its bytes were sent
all the same: :class:`flower_ist.grids.metered.Meter` in front of it counts them.

Left at that, who is late once may be late for ever: messages wait for a client up to 12 hours, and
a client that was away works through those of closed rounds first. :class:`Deadlines` lets a
message live as long as its round is open. It can also close a round early, where more clients train
than there are slices: Bonawitz et al., "Towards Federated Learning at Scale", MLSys 2019,
https://arxiv.org/abs/1902.01046, end a round so once enough clients have reported. Unlike there, it
is every slice that must be back.
"""

from __future__ import annotations

import hashlib
import time

from flwr.app import Message
from flwr.serverapp import Grid

from flower_ist.grids.chain import Filter, is_train
from flower_ist.wire.protocol import LIFE_AFTER_TIMEOUT, PRIOR_RECORD

_POLL_SECONDS = 1.0


class Deadlines(Filter):
    """Let messages expire with their round, and rounds close early.

    Closing early, training is over as soon as each distinct piece of work that was sent has a reply
    without an error, and ``min_replies`` are there. Pieces are told apart by the model's arrays:
    clients of one slice get the same ones, and all clients of FedAvg do. Who is asked once too
    often for a slice is thus not waited for. A message without such arrays, as one that asks for
    statistics, is a piece of its own: nobody else can answer it. Which replies those are depends on
    the clients' speed, so such a run cannot be repeated bit for bit. A client that is still busy
    with a closed round answers that one before the next.

    Args:
        close_early: do not wait for all clients in training.
        min_replies: fewest replies without an error to close with.
    """

    def __init__(self, *, close_early: bool = False, min_replies: int = 1) -> None:
        self.close_early = close_early
        self.min_replies = min_replies

    def exchange(self, grid: Grid, messages: list[Message], timeout: float | None) -> list[Message]:
        """Send messages and return the replies that are there when the round closes."""
        if timeout is not None:
            for message in messages:
                # The time since a message was made is part of its life.
                age = time.time() - message.metadata.created_at
                message.metadata.ttl = age + timeout + LIFE_AFTER_TIMEOUT
        if self.close_early and messages and is_train(messages[0]):
            return self._until_enough(grid, messages, timeout)
        return super().exchange(grid, messages, timeout)

    def _until_enough(
        self, grid: Grid, messages: list[Message], timeout: float | None
    ) -> list[Message]:
        start = time.monotonic()
        pieces = [_piece(message) for message in messages]
        grid.push_messages(messages)  # which gives them their ids
        piece_of = {
            message.metadata.message_id: piece
            for message, piece in zip(messages, pieces, strict=True)
        }
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


def _piece(message: Message) -> bytes:
    """Return what tells one piece of work from another: a digest of the model's arrays.

    The token prior is none of them: it goes to those clients of a slice that do not hold it yet.
    """
    records = message.content.array_records
    work = [record for key, record in records.items() if key != PRIOR_RECORD]
    if not work:
        return str(message.metadata.dst_node_id).encode()
    digest = hashlib.blake2b(digest_size=16)
    for record in work:
        for name, array in record.items():
            digest.update(f"{name} {array.dtype} {array.shape};".encode())
            digest.update(array.data)
    return digest.digest()
