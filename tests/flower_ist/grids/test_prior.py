"""The grid that hands out the prior: to whom, when again, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.metered import MeteredGrid
from flower_ist.grids.prior import PriorOnce
from flower_ist.statistics.gaussians import ClassGaussians
from flower_ist.statistics.prior import TokenPrior, prior_layout
from flower_ist.wire.layout import layout_of
from flower_ist.wire.packing import SQUEEZED, digest_of, pack, unpack
from flower_ist.wire.protocol import PRIOR_ARRAY, PRIOR_KEY, PRIOR_RECORD, REPLAY_KEY, SKIP_KEY
from tests.fakes.tiny import NotingGrid, model, partition_of, tiny_app

# Two numbers a token, three classes: mean and spread 8 bytes each, shares 12, a step of 4 and class
# means of 12, a step of 4, a factor of 4 numbers and 2 deviations of 2 bytes. They are
# compressed, and a byte says how.
PRIOR = TokenPrior(
    np.array([1, 2], np.float32),
    np.array([3, 4], np.float32),
    ClassGaussians(
        np.array([0.5, 0.5, 0], np.float32),
        np.arange(6, dtype=np.float32).reshape(3, 2),
        np.array([[2, 3], [1, 0]], np.float32),
        np.zeros(2, np.float32),
    ),
)


def size_of(prior: TokenPrior) -> int:
    tensors = prior.to_tensors()
    return len(pack(tensors, layout_of(tensors), SQUEEZED).data)


PRIOR_BYTES = size_of(PRIOR)


class Seen(InProcessGrid):
    """A grid that notes (partition, message type, prior's name, whether the prior itself came)."""

    def __init__(self, app: ClientApp, num_clients: int) -> None:
        super().__init__(app, num_clients)
        self.seen: list[tuple[int, str, object, bool]] = []
        self.contents: list[RecordDict] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        nodes = list(self.get_node_ids())
        for message in messages:
            content = message.content
            name = content.config_records.get(PRIOR_KEY, {}).get(PRIOR_KEY)
            partition = nodes.index(message.metadata.dst_node_id)
            kind = message.metadata.message_type
            self.seen.append((partition, kind, name, PRIOR_RECORD in content))
            self.contents.append(content)
        return super().push_messages(messages)


def messages_to(
    grid: InProcessGrid, partitions: Iterable[int], kind: str = "train"
) -> list[Message]:
    """Make messages that share one content, as FedAvg does."""
    nodes = list(grid.get_node_ids())
    content = RecordDict({"arrays": model(), "config": ConfigRecord({"server-round": 1})})
    return [Message(content, nodes[partition], kind) for partition in partitions]


def came(grid: Seen) -> list[bool]:
    return [prior for _, _, _, prior in grid.seen]


def test_the_prior_goes_with_the_first_message_only():
    seen = Seen(tiny_app(), 3)
    grid = FilteredGrid(seen, [PriorOnce(PRIOR)])
    grid.send_and_receive(messages_to(seen, [0, 1]))
    grid.send_and_receive(messages_to(seen, [0, 1, 2]))
    grid.send_and_receive(messages_to(seen, [2], "evaluate"))
    assert came(seen) == [True, True, False, False, True, False]
    names = {name for _, _, name, _ in seen.seen}
    assert len(names) == 1
    assert len(str(names.pop())) == 16


@pytest.mark.parametrize("skip", [False, True])
def test_what_is_sent_can_be_read_and_is_named_after_its_bytes(skip: bool):
    """At most 56 bytes and one that says how; a head adds 6 weights of 2 and 3 biases of 4."""
    prior = PRIOR.with_head(np.ones((3, 2), np.float32), np.zeros(3, np.float32)) if skip else PRIOR
    seen = Seen(tiny_app(), 1)
    FilteredGrid(seen, [PriorOnce(prior)]).send_and_receive(messages_to(seen, [0]))
    (content,) = seen.contents
    array = content.array_records[PRIOR_RECORD][PRIOR_ARRAY]
    assert dict(content.config_records[PRIOR_KEY]) == {
        PRIOR_KEY: digest_of(array),
        REPLAY_KEY: True,
        SKIP_KEY: skip,
    }
    assert len(array.data) == size_of(prior) <= 57 + skip * (12 + 12)
    layout = prior_layout(2, 3, replay=True, skip=skip)
    found = TokenPrior.from_tensors(unpack(array, layout, SQUEEZED))
    np.testing.assert_array_equal([found.mean, found.spread], [prior.mean, prior.spread])
    assert found.gaussians is not None
    np.testing.assert_array_equal(found.gaussians.means, np.arange(6).reshape(3, 2))
    np.testing.assert_allclose(found.gaussians.factor, [[2, 3], [1, 0]], atol=14**0.5 / 2**0.5 / 32)
    assert (found.head is not None) == skip


def test_another_prior_has_another_name():
    names = set()
    for prior in (
        PRIOR,
        TokenPrior(PRIOR.mean, PRIOR.spread),
        TokenPrior(PRIOR.spread, PRIOR.mean),
        PRIOR.with_head(np.ones((3, 2), np.float32), np.zeros(3, np.float32)),
        PRIOR.with_head(np.ones((3, 2), np.float32), np.ones(3, np.float32)),
    ):
        seen = Seen(tiny_app(), 1)
        FilteredGrid(seen, [PriorOnce(prior)]).send_and_receive(messages_to(seen, [0]))
        names.add(seen.seen[0][2])
    assert len(names) == 5


def test_who_failed_gets_it_again():
    broken = {1}
    seen = Seen(tiny_app(fails=lambda partition: partition in broken), 2)
    grid = FilteredGrid(seen, [PriorOnce(PRIOR)])
    grid.send_and_receive(messages_to(seen, [0, 1]))
    broken.clear()
    grid.send_and_receive(messages_to(seen, [0, 1]))
    grid.send_and_receive(messages_to(seen, [0, 1]))
    assert came(seen) == [True, True, False, True, False, False]
    broken.add(0)
    grid.send_and_receive(messages_to(seen, [0]))
    grid.send_and_receive(messages_to(seen, [0]))
    assert came(seen)[-2:] == [False, True]


def test_who_never_answered_gets_it_again():
    grid = NotingGrid(tiny_app(), 2, lose=lambda kind, partition: partition == 1 and bool(lost))
    lost = [True]
    informed = FilteredGrid(grid, [PriorOnce(PRIOR)])
    informed.send_and_receive(messages_to(grid, [0, 1]))
    lost.clear()
    informed.send_and_receive(messages_to(grid, [0, 1]))
    down = [(node, payload) for _, way, _, node, _, payload in grid.notes if way == "down"]
    both = 32 + PRIOR_BYTES
    assert down == [(0, both), (1, both), (0, 32), (1, both)]


def test_pushing_and_pulling_do_the_same():
    seen = Seen(tiny_app(), 2)
    grid = FilteredGrid(seen, [PriorOnce(PRIOR)])
    for _ in range(2):
        replies = list(grid.pull_messages(grid.push_messages(messages_to(seen, [0, 1]))))
        assert not any(reply.has_error() for reply in replies)
    assert came(seen) == [True, True, False, False]


def test_other_messages_pass_as_they_are():
    seen = Seen(tiny_app(), 1)
    questions = messages_to(seen, [0], "query")
    FilteredGrid(seen, [PriorOnce(PRIOR)]).send_and_receive(questions)
    assert seen.seen == [(0, "query", None, False)]
    assert seen.contents[0] is questions[0].content


def test_a_named_action_is_a_train_message_too():
    app = tiny_app()
    seen = Seen(app, 1)

    @app.train("mine")
    def mine(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    grid = FilteredGrid(seen, [PriorOnce(PRIOR)])
    grid.send_and_receive(messages_to(seen, [0], "train.mine"))
    grid.send_and_receive(messages_to(seen, [0], "train.mine"))
    assert came(seen) == [True, False]


def test_what_the_strategy_sent_is_not_changed_and_stays_shared():
    """The meter serializes a content once however many clients get it."""
    seen = Seen(tiny_app(), 4)
    grid = FilteredGrid(seen, [PriorOnce(PRIOR)])
    grid.send_and_receive(messages_to(seen, [0]))
    outgoing = messages_to(seen, [0, 1, 2, 3])
    grid.send_and_receive(outgoing)
    assert list(outgoing[0].content) == ["arrays", "config"]
    kept, brought = {id(c) for c in seen.contents[1:2]}, {id(c) for c in seen.contents[2:]}
    assert (len(kept), len(brought)) == (1, 1)
    assert kept != brought


def test_a_message_keeps_its_life_and_its_group():
    kept: list[Message] = []

    class Keeping(InProcessGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            kept.extend(messages := list(messages))
            return super().push_messages(messages)

    grid = Keeping(tiny_app(), 1)
    (node,) = grid.get_node_ids()
    content = RecordDict({"arrays": model()})
    FilteredGrid(grid, [PriorOnce(PRIOR)]).push_messages(
        [Message(content, node, "train", ttl=77.0, group_id="g")]
    )
    metadata = kept[0].metadata
    assert (metadata.ttl, metadata.group_id, metadata.dst_node_id) == (77.0, "g", node)


@pytest.mark.parametrize("fails", [lambda _: False, lambda partition: partition == 2])
def test_its_bytes_are_counted_once_a_client(fails: Callable[[int], bool]):
    """FedAvg of three clients and two rounds: 32 bytes of weights in each message, and the prior's
    in each client's first, and again to the client that fails in the first round."""
    rounds: list[int] = []

    def now_fails(partition: int) -> bool:
        rounds.append(partition)
        return fails(partition) and rounds.count(partition) == 1

    meter = MeteredGrid(InProcessGrid(tiny_app(fails=now_fails), 3))
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=2)
    strategy.start(
        grid=FilteredGrid(meter, [PriorOnce(PRIOR)]), initial_arrays=model(), num_rounds=3
    )
    again = int(fails(2))
    payloads = [meter.traffic(number).total.payload_bytes_down for number in (1, 2, 3)]
    assert payloads == [3 * (32 + PRIOR_BYTES), 3 * 32 + again * PRIOR_BYTES, 3 * 32]
    wire = {n: t.wire_bytes_down for n, t in meter.traffic(1).by_node.items()}
    later = {n: t.wire_bytes_down for n, t in meter.traffic(3).by_node.items()}
    # The array's and the record's own frames take a few hundred bytes beside it.
    assert all(PRIOR_BYTES < wire[node] - later[node] < PRIOR_BYTES + 1000 for node in wire)


def test_a_client_sees_prior_and_model_side_by_side():
    found: dict[int, Mapping[str, ArrayRecord]] = {}
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        found[partition_of(context)] = dict(message.content.array_records)
        return Message(RecordDict(), reply_to=message)

    grid = InProcessGrid(app, 1)
    FilteredGrid(grid, [PriorOnce(PRIOR)]).send_and_receive(messages_to(grid, [0]))
    assert found[0].keys() == {"arrays", PRIOR_RECORD}
