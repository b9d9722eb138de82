"""What cannot be the answer to a question is an error in its place, and cheap to find out."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from flower_ist.grids.answers import Answers
from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.metered import Meter
from flower_ist.wire.protocol import REFUSED_CODE
from flower_ist.wire.size import wire_bytes

ARRAYS = ArrayRecord({"w": Array(np.zeros(100, np.float32))})
Answer = Callable[[Message], Message]


def exchange(answer: Answer, kind: str = "train") -> tuple[Message, Meter, Message]:
    """Ask one node and return the answer, the meter, and what the node sent."""
    sent: list[Message] = []

    def app(message: Message, context: Context) -> Message:
        sent.append(answer(message))
        return sent[-1]

    meter = Meter()
    grid = FilteredGrid(InProcessGrid(app, 1), [meter, Answers(most_bytes=10_000)])
    (node,) = grid.get_node_ids()
    content = RecordDict({"arrays": ARRAYS, "config": ConfigRecord({"server-round": 1})})
    (reply,) = grid.send_and_receive([Message(content, node, kind)])
    assert reply.metadata.src_node_id == node
    assert reply.metadata.message_type == kind
    return reply, meter, sent[0]


def good(message: Message) -> Message:
    metrics = MetricRecord({"num-examples": 5})
    return Message(RecordDict({"arrays": ARRAYS, "metrics": metrics}), reply_to=message)


def of_type(kind: str) -> Answer:
    def answer(message: Message) -> Message:
        reply = good(message)
        reply.metadata.message_type = kind
        return reply

    return answer


def with_metrics(count: int) -> Answer:
    def answer(message: Message) -> Message:
        record = MetricRecord({f"metric-{k}": 1.0 for k in range(count)})
        return Message(RecordDict({"metrics": record}), reply_to=message)

    return answer


def with_bytes(count: int) -> Answer:
    def answer(message: Message) -> Message:
        record = ArrayRecord({"w": Array(np.zeros(count, np.uint8))})
        return Message(RecordDict({"arrays": record}), reply_to=message)

    return answer


def from_another_node(message: Message) -> Message:
    reply = good(message)
    reply.metadata.__dict__["_src_node_id"] = 99
    return reply


@pytest.mark.parametrize("kind", ["train", "evaluate", "query", "train.mine", "query.statistics"])
def test_an_answer_passes(kind):
    reply, meter, sent = exchange(good, kind)
    assert reply.content["metrics"]["num-examples"] == 5
    assert meter.traffic(1).total.wire_bytes_up == wire_bytes(sent)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (of_type("query"), "train", "it answers 'train' but calls itself 'query'"),
        (of_type("train"), "evaluate", "it answers 'evaluate' but calls itself 'train'"),
        (of_type("evaluate"), "query", "it answers 'query' but calls itself 'evaluate'"),
        (of_type("system"), "train", "it answers 'train' but calls itself 'system'"),
        (from_another_node, "train", "another node answered in its place"),
        (with_metrics(1026), "train", "the reply has 1,026 entries, where 1,025 would do"),
        (with_bytes(10_000), "train", "bytes, where 10,000 would do"),
        (with_bytes(10_000), "query", "bytes, where 10,000 would do"),
    ],
)
def test_what_is_no_answer_is_a_refusal_and_its_bytes_are_counted(answer, kind, reason):
    reply, meter, sent = exchange(answer, kind)
    assert reply.has_error()
    assert reply.error.code == REFUSED_CODE
    assert reason in reply.error.reason
    counted = meter.traffic(1).by_type[kind].wire_bytes_up
    assert counted == pytest.approx(wire_bytes(sent), rel=0.1) or len(sent.content) == 1
    assert counted > 400


def test_a_hundred_thousand_metrics_are_not_serialized():
    """Serializing them takes 30 times as long as looking at them."""
    _, _, sent = exchange(good)
    sent = with_metrics(100_000)(sent)
    answers = Answers()
    question = Message(RecordDict(), dst_node_id=sent.metadata.src_node_id, message_type="train")
    question.metadata.__dict__["_message_id"] = sent.metadata.reply_to_message_id
    list(answers.down([question]))
    start = time.process_time()
    (judged,) = answers.up([sent])
    looked = time.process_time() - start
    assert "100,000 entries" in judged.error.reason
    assert wire_bytes(judged) > 800_000  # as it has no content, nothing is serialized now either
    start = time.process_time()
    wire_bytes(sent)
    assert looked < (time.process_time() - start) / 3


def test_a_second_answer_passes_on_to_whoever_knows_that_one_came():
    answers = Answers()
    question = Message(RecordDict(), dst_node_id=5, message_type="train")
    question.metadata.__dict__["_message_id"] = "1"
    list(answers.down([question]))
    first, second = (of_type("query")(question) for _ in range(2))
    judged = list(answers.up([first, second]))
    assert judged[0].has_error()
    assert judged[1] is second


def test_questions_that_nobody_answers_are_forgotten():
    answers = Answers()
    for number in range(5):
        question = Message(RecordDict(), dst_node_id=5, message_type="train", ttl=0.01)
        question.metadata.__dict__["_message_id"] = str(number)
        list(answers.down([question]))
        time.sleep(0.02)
        list(answers.up([of_type("query")(Message(RecordDict(), 6, "train"))]))
    assert len(answers._open) == 1
