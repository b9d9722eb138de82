"""The in-process grid: what crosses it is serialized, clients keep state, order is fixed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flower_ist.grids.chain import Filter, FilteredGrid
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.app import run_in_process
from tests.fakes.tiny import partition_of, tiny_app


def questions(grid: Grid, content: RecordDict | None = None) -> list[Message]:
    return [
        Message(content or RecordDict(), dst_node_id=node, message_type="train")
        for node in grid.get_node_ids()
    ]


def test_client_and_server_never_share_an_object():
    seen = []
    app = ClientApp()

    @app.train()
    def train(message: Message, _: Context) -> Message:
        array = message.content.array_records["arrays"]["w"]
        seen.append((message, message.content, array))
        message.content["config"] = ConfigRecord({"mine": True})
        answer = Message(RecordDict({"metrics": MetricRecord({"a": 1})}), reply_to=message)
        seen.append((answer, answer.content))
        return answer

    grid = InProcessGrid(app, 1)
    weight = Array(np.arange(3.0))
    (sent,) = questions(grid, RecordDict({"arrays": ArrayRecord({"w": weight})}))
    (reply,) = grid.send_and_receive([sent])
    (message, content, array), (answer, answer_content) = seen
    assert message is not sent
    assert content is not sent.content
    assert array is not weight
    assert array.data == weight.data
    assert list(sent.content) == ["arrays"]
    assert reply is not answer
    assert reply.content is not answer_content
    assert reply.content == answer_content


def test_what_cannot_be_serialized_fails_as_it_would_on_a_network():
    """Flower carries whole numbers of 64 bits; in one process nobody would notice more."""
    grid = InProcessGrid(tiny_app(), 1)
    content = RecordDict({"config": ConfigRecord({"seed": 2**70})})
    with pytest.raises(ValueError, match="out of range"):
        grid.send_and_receive(questions(grid, content))


def test_exceptions_become_error_replies_and_the_others_answer():
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if partition_of(context) == 1:
            raise KeyError("no such key")
        return Message(RecordDict(), reply_to=message)

    grid = InProcessGrid(app, 3)
    sent = questions(grid)
    replies = list(grid.send_and_receive(sent))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert (replies[1].error.code, replies[1].error.reason) == (2, "KeyError: 'no such key'")
    assert replies[1].metadata.src_node_id == sent[1].metadata.dst_node_id
    assert replies[1].metadata.reply_to_message_id == sent[1].metadata.message_id


def test_state_stays_with_its_client():
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        met = context.state.metric_records.get("met", MetricRecord({"times": 0}))
        context.state["met"] = MetricRecord({"times": int(str(met["times"])) + 1})
        return Message(RecordDict({"met": context.state["met"]}), reply_to=message)

    grid = InProcessGrid(app, 2)
    first, second = questions(grid)
    grid.send_and_receive([first])
    grid.send_and_receive([first])
    replies = grid.send_and_receive([first, second])
    assert [reply.content.metric_records["met"]["times"] for reply in replies] == [3, 1]


def test_replies_come_in_the_order_of_the_messages():
    grid = InProcessGrid(tiny_app(), 4)
    nodes = list(grid.get_node_ids())
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        sent = [Message(RecordDict(), nodes[k], "query") for k in order]
        replies = grid.send_and_receive(sent)
        assert [reply.metadata.src_node_id for reply in replies] == [nodes[k] for k in order]
    assert nodes == list(InProcessGrid(tiny_app(), 4).get_node_ids())


def test_each_reply_is_pulled_once():
    grid = InProcessGrid(tiny_app(), 2)
    ids = list(grid.push_messages(questions(grid)))
    assert len(set(ids)) == 2
    assert len(list(grid.pull_messages([ids[1]]))) == 1
    assert len(list(grid.pull_messages(ids))) == 1
    assert list(grid.pull_messages(ids)) == []


@pytest.mark.parametrize("filtered", [False, True])
def test_replies_are_pulled_under_both_of_flowers_names_and_without_ids(filtered: bool) -> None:
    """Flower has ``message_ids``, and from 1.43 on ``reply_to_message_ids``, which may be None."""
    inner = InProcessGrid(tiny_app(), 3)
    grid = FilteredGrid(inner, [Filter()]) if filtered else inner
    first, second, _ = grid.push_messages(questions(grid))

    def asked_of(replies: Iterable[Message]) -> list[str]:
        return [reply.metadata.reply_to_message_id for reply in replies]

    assert asked_of(grid.pull_messages(message_ids=[second])) == [second]
    assert asked_of(grid.pull_messages(reply_to_message_ids=[first, second])) == [first]
    assert asked_of(grid.pull_messages([])) == []
    assert len(asked_of(grid.pull_messages())) == 1


def test_apps_see_their_configs():
    seen = []
    client, server = ClientApp(), ServerApp()

    @client.query()
    def query(message: Message, context: Context) -> Message:
        seen.append((context.node_config, context.run_config))
        return Message(RecordDict(), reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        seen.append(context.run_config)
        list(
            grid.send_and_receive([Message(RecordDict(), n, "query") for n in grid.get_node_ids()])
        )

    run_in_process(server, client, 2, {"a": 1})
    server(InProcessGrid(client, 1, {}, [{"data-path": "/x"}]), Context(1, 1, {}, RecordDict(), {}))
    assert seen == [
        {"a": 1},
        ({"partition-id": 0, "num-partitions": 2}, {"a": 1}),
        ({"partition-id": 1, "num-partitions": 2}, {"a": 1}),
        {},
        ({"data-path": "/x"}, {}),
    ]


def test_what_the_server_raises_is_raised_here():
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        raise ZeroDivisionError("in the server")

    with pytest.raises(ZeroDivisionError, match="in the server"):
        run_in_process(server, ClientApp(), 1, {})
