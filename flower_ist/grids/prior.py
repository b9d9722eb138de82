"""A Grid that hands each client the token prior, once, for any strategy, unchanged.

    strategy -> PriorGrid -> MeteredGrid -> the grid that Flower gives

Every train and evaluate message names the prior that it counts on, in 16 characters. The prior
itself goes with a client's first message. The client keeps it in its context's state; one that has
lost it (a SuperNode that was started again) answers with an error, and gets it with its next one.
A prior that is renewed goes to everybody again.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from flower_ist.grids.chain import GridWrapper, category, with_content
from flower_ist.statistics.prior import TokenPrior
from flower_ist.wire.layout import digest_of, layout_of, pack
from flower_ist.wire.protocol import PRIOR_ARRAY, PRIOR_KEY, PRIOR_RECORD, REPLAY_KEY

_WITH_PRIOR = (MessageType.TRAIN, MessageType.EVALUATE)


class PriorGrid(GridWrapper):
    """Send the prior to every node that is not known to have it.

    Args:
        grid: the grid to wrap; a metered one, so that the prior's bytes are counted.
        prior: what is sent.
    """

    def __init__(self, grid: Grid, prior: TokenPrior) -> None:
        super().__init__(grid)
        self._record, self._name = _packed(prior)
        self._holders: set[int] = set()

    def renew(self, prior: TokenPrior) -> None:
        """Send another prior from now on, to every node; the same one is not sent again.

        A client whose late reply to a message before this one counts as having it misses a round:
        it answers the next message with an error, as one that has lost its prior.
        """
        record, name = _packed(prior)
        if name[PRIOR_KEY] != self._name[PRIOR_KEY]:
            self._record, self._name = record, name
            self._holders.clear()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Add the prior or its name, then push."""
        return self._grid.push_messages(self._informed(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies and note who has the prior."""
        return [self._noted(reply) for reply in self._grid.pull_messages(message_ids)]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Add the prior or its name, send, and note who has the prior."""
        replies = self._grid.send_and_receive(self._informed(messages), timeout=timeout)
        return [self._noted(reply) for reply in replies]

    def _informed(self, messages: Iterable[Message]) -> list[Message]:
        messages = list(messages)  # keeps the contents alive, and so their ids distinct
        # FedAvg sends one content to all clients: what goes out in its place is shared too.
        contents: dict[tuple[int, bool], RecordDict] = {}
        outgoing = []
        for message in messages:
            if _has_prior(message):
                holds = message.metadata.dst_node_id in self._holders
                key = (id(message.content), holds)
                if key not in contents:
                    contents[key] = self._content(message.content, holds)
                message = with_content(message, contents[key])
            outgoing.append(message)
        return outgoing

    def _content(self, content: RecordDict, holds: bool) -> RecordDict:
        """Return a new content with the prior's name, and the prior for one who lacks it."""
        informed = RecordDict({**content, PRIOR_KEY: self._name})
        if not holds:
            informed[PRIOR_RECORD] = self._record
        return informed

    def _noted(self, reply: Message) -> Message:
        if _has_prior(reply):
            if reply.has_error():
                self._holders.discard(reply.metadata.src_node_id)
            else:
                self._holders.add(reply.metadata.src_node_id)
        return reply


def _packed(prior: TokenPrior) -> tuple[ArrayRecord, ConfigRecord]:
    """Return the record that brings a prior, and the one that names it."""
    tensors = prior.to_tensors()
    array = pack(tensors, layout_of(tensors))
    replays = prior.gaussians is not None
    name = ConfigRecord({PRIOR_KEY: digest_of(array), REPLAY_KEY: replays})
    return ArrayRecord({PRIOR_ARRAY: array}), name


def _has_prior(message: Message) -> bool:
    """Return whether a message is of a type, such as ``train`` or ``train.my_action``, with it."""
    return category(message) in _WITH_PRIOR
