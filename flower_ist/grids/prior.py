"""Send each client the token prior once, for any strategy, unchanged.

Every train and evaluate message names the prior that it requires, in 16 characters. The prior
itself goes with a client's first message. The client keeps it in its context's state. A client that
has lost it (a restarted SuperNode) replies with an error, and gets the prior with its next message.
A renewed prior goes to all clients again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from flower_ist.grids.chain import Filter, PerContent, category, with_content
from flower_ist.statistics.prior import TokenPrior
from flower_ist.wire.compact import Directions
from flower_ist.wire.layout import layout_of
from flower_ist.wire.packing import SQUEEZED, digest_of, pack
from flower_ist.wire.protocol import PRIOR_ARRAY, PRIOR_KEY, PRIOR_RECORD, REPLAY_KEY, SKIP_KEY

_WITH_PRIOR = (MessageType.TRAIN, MessageType.EVALUATE)


class PriorOnce(Filter):
    """Send the prior to every node that is not known to have it.

    Args:
        prior: the prior to send; None sends nothing until there is one.
    """

    def __init__(self, prior: TokenPrior | None = None) -> None:
        self._prior = None if prior is None else _packed(prior)
        self._holders: set[int] = set()

    def renew(self, prior: TokenPrior) -> None:
        """Send another prior from now on, to every node; the same one is not sent again.

        A client may be taken to have the new prior because of a late reply to an earlier message.
        It misses a round: it answers the next message with an error, like a client that has lost
        its prior.
        """
        renewed = _packed(prior)
        if self._prior is None or renewed.digest != self._prior.digest:
            self._prior = renewed
            self._holders.clear()

    def directions(self) -> Directions | None:
        """Return the directions of tokens in the prior that the next messages name, if any."""
        return None if self._prior is None else self._prior.directions

    def down(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Add the prior's name, and the prior itself for those that lack it."""
        prior = self._prior
        if prior is None:
            yield from messages
            return
        # FedAvg sends the same content to all clients: what replaces it is shared too.
        named = PerContent(lambda content: prior.added_to(content, holds=True))
        sent = PerContent(lambda content: prior.added_to(content, holds=False))
        for message in messages:
            if _has_prior(message):
                informed = named if message.metadata.dst_node_id in self._holders else sent
                message = with_content(message, informed(message.content))
            yield message

    def up(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Note who has the prior."""
        for reply in replies:
            if _has_prior(reply):
                note = self._holders.discard if reply.has_error() else self._holders.add
                note(reply.metadata.src_node_id)
            yield reply


@dataclass(frozen=True)
class _Packed:
    """A prior as it is sent: the record that holds it, and the one that names it."""

    record: ArrayRecord
    name: ConfigRecord
    directions: Directions | None

    @property
    def digest(self) -> str:
        return str(self.name[PRIOR_KEY])

    def added_to(self, content: RecordDict, holds: bool) -> RecordDict:
        """Return new content with the prior's name, and the prior for a client that lacks it."""
        informed = RecordDict({**content, PRIOR_KEY: self.name})
        if not holds:
            informed[PRIOR_RECORD] = self.record
        return informed


def _packed(prior: TokenPrior) -> _Packed:
    tensors = prior.to_tensors()
    array = pack(tensors, layout_of(tensors), SQUEEZED)
    name = ConfigRecord(
        {
            PRIOR_KEY: digest_of(array),
            REPLAY_KEY: prior.gaussians is not None,
            SKIP_KEY: prior.head is not None,
        }
    )
    # Those that clients will read, which are rounded.
    directions = TokenPrior.from_tensors(tensors).directions()
    return _Packed(ArrayRecord({PRIOR_ARRAY: array}), name, directions)


def _has_prior(message: Message) -> bool:
    """Return whether messages of this type, such as ``train.my_action``, carry the prior."""
    return category(message) in _WITH_PRIOR
