"""Judge each reply against the question that it answers, before anything reads it.

A reply may be of any size and say anything of itself: it comes from a machine that nobody controls.
Here it is measured without being serialized, and compared with the message that was sent: the same
node, the same type, no more entries and bytes than an answer can have. What fails becomes an error
in the place of the reply, addressed as the question was; so do the SuperLink's own errors, which
carry its node id. Whoever reads on knows whose answer to what it is. What the answer holds is
judged by who asked (:mod:`flower_ist.strategies.judge`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from flwr.app import Error, Message, Metadata

from flower_ist.grids.chain import Filter, category
from flower_ist.wire._flwr import empty_message
from flower_ist.wire.protocol import REFUSED_CODE
from flower_ist.wire.records import arrays_in
from flower_ist.wire.reported import client_text, is_superlink_error
from flower_ist.wire.size import RefusedReply, extent, wire_bytes

# Besides one array for each that was sent: metrics, facts and their like.
_MOST_ENTRIES = 1024
# The end of a traceback says what happened.
_LONGEST_REASON = 10_000


class Answers(Filter):
    """Pass on replies that can be answers, and errors in the place of all others.

    It belongs next to the network, behind the meter, which counts what was refused here too.

    Args:
        most_bytes: of a reply; None: no bound.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        self._most_bytes = most_bytes
        # What was asked and how many arrays it had. A message's id is set when it is pushed.
        self._new: list[tuple[Metadata, int]] = []
        self._open: dict[str, tuple[Metadata, int]] = {}

    def down(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Remember what is asked."""
        for message in messages:
            arrays = sum(map(len, arrays_in(message.content).values()))
            self._new.append((message.metadata, arrays))
            yield message

    def up(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Judge the answers."""
        for reply in replies:
            self._note_sent()
            asked = self._open.pop(reply.metadata.reply_to_message_id, None)
            yield reply if asked is None else self._judge(reply, empty_message(asked[0]), asked[1])

    def _note_sent(self) -> None:
        """Index what was sent by its id, and forget what nobody will answer any more."""
        if not self._new:
            return
        now = time.time()
        for message_id, (asked, _) in list(self._open.items()):
            if asked.created_at + asked.ttl < now:
                del self._open[message_id]
        for asked, arrays in self._new:
            self._open[asked.message_id] = (asked, arrays)
        self._new = []

    def _judge(self, reply: Message, asked: Message, arrays: int) -> Message:
        if is_superlink_error(reply):
            return Message(reply.error, reply_to=asked)
        entries, size = extent(reply)
        if entries > _MOST_ENTRIES + arrays:
            reason = f"the reply has {entries:,} entries, where {_MOST_ENTRIES + arrays:,} would do"
        elif self._most_bytes is not None and size > self._most_bytes:
            reason = f"the reply has {size:,} bytes, where {self._most_bytes:,} would do"
        elif reply.metadata.src_node_id != asked.metadata.dst_node_id:
            reason = "another node answered in its place"
        elif category(reply) != category(asked):
            kind = client_text(category(reply), 20)
            reason = f"it answers {category(asked)!r} but calls itself {kind!r}"
        elif reply.has_error() and len(reply.error.reason or "") > _LONGEST_REASON:
            end = (reply.error.reason or "")[-_LONGEST_REASON:]
            return RefusedReply(Error(reply.error.code, end), asked, size)
        else:
            return reply
        received = size if entries > _MOST_ENTRIES + arrays else wire_bytes(reply)
        return RefusedReply(Error(REFUSED_CODE, reason), asked, received)
