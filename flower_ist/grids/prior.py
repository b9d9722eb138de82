"""Hand each client the token prior, once, for any strategy, unchanged.

Every train and evaluate message names the prior that it counts on, in 16 characters. The prior
itself goes with a client's first message. The client keeps it in its context's state; one that has
lost it (a SuperNode that was started again) answers with an error, and gets it with its next one.
A prior that is renewed goes to everybody again.
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from flower_ist.grids.chain import Filter, category, with_content
from flower_ist.statistics.prior import TokenPrior
from flower_ist.wire.layout import digest_of, layout_of, pack
from flower_ist.wire.protocol import PRIOR_ARRAY, PRIOR_KEY, PRIOR_RECORD, REPLAY_KEY, SKIP_KEY

_WITH_PRIOR = (MessageType.TRAIN, MessageType.EVALUATE)


class PriorOnce(Filter):
    """Send the prior to every node that is not known to have it.

    Args:
        prior: what is sent; None: nothing, until there is one.
    """

    def __init__(self, prior: TokenPrior | None = None) -> None:
        self._prior = None if prior is None else _packed(prior)
        self._holders: set[int] = set()

    def renew(self, prior: TokenPrior) -> None:
        """Send another prior from now on, to every node; the same one is not sent again.

        A client whose late reply to a message before this one counts as having it misses a round:
        it answers the next message with an error, as one that has lost its prior.
        """
        renewed = _packed(prior)
        if self._prior is None or renewed.digest != self._prior.digest:
            self._prior = renewed
            self._holders.clear()

    def down(self, messages: list[Message]) -> list[Message]:
        """Add the prior's name, and the prior itself for those who lack it."""
        if self._prior is None:
            return messages
        # FedAvg sends one content to all clients: what goes out in its place is shared too.
        contents: dict[tuple[int, bool], RecordDict] = {}
        outgoing = []
        for message in messages:
            if _has_prior(message):
                holds = message.metadata.dst_node_id in self._holders
                key = (id(message.content), holds)
                if key not in contents:
                    contents[key] = self._prior.added_to(message.content, holds)
                message = with_content(message, contents[key])
            outgoing.append(message)
        return outgoing

    def up(self, replies: list[Message]) -> list[Message]:
        """Note who has the prior."""
        for reply in replies:
            if not _has_prior(reply):
                continue
            if reply.has_error():
                self._holders.discard(reply.metadata.src_node_id)
            else:
                self._holders.add(reply.metadata.src_node_id)
        return replies


@dataclass(frozen=True)
class _Packed:
    """A prior as it travels: the record that brings it, and the one that names it."""

    record: ArrayRecord
    name: ConfigRecord

    @property
    def digest(self) -> str:
        return str(self.name[PRIOR_KEY])

    def added_to(self, content: RecordDict, holds: bool) -> RecordDict:
        """Return a new content with the prior's name, and the prior for one who lacks it."""
        informed = RecordDict({**content, PRIOR_KEY: self.name})
        if not holds:
            informed[PRIOR_RECORD] = self.record
        return informed


def _packed(prior: TokenPrior) -> _Packed:
    tensors = prior.to_tensors()
    array = pack(tensors, layout_of(tensors))
    name = ConfigRecord(
        {
            PRIOR_KEY: digest_of(array),
            REPLAY_KEY: prior.gaussians is not None,
            SKIP_KEY: prior.head is not None,
        }
    )
    return _Packed(ArrayRecord({PRIOR_ARRAY: array}), name)


def _has_prior(message: Message) -> bool:
    """Return whether a message is of a type, such as ``train`` or ``train.my_action``, with it."""
    return category(message) in _WITH_PRIOR
