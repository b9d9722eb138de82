"""Evaluate replies are judged like train replies, and no reply ends a run of FedAvg."""

from __future__ import annotations

import math

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.clients import Client, ClientRegistry
from flower_ist.grids.metered import Meter
from flower_ist.strategies.metrics import AlikeReplies, alike, judged_metrics
from flower_ist.strategies.submodel import ISTStrategy
from tests.fakes.hostile import Lie, lying, reports
from tests.fakes.strategies import AXES, model
from tests.fakes.tiny import NotingGrid, tiny_app
from tests.fakes.tiny import model as tiny_model

LIES: dict[str, Lie] = {
    "no examples": reports("evaluate", num_examples=0),
    "fewer than none": reports("evaluate", num_examples=-5),
    "a billion examples": reports("evaluate", num_examples=10**9, accuracy=0.0),
    "examples that are no number": reports("evaluate", num_examples=[10]),
    "no number of examples": reports("evaluate", num_examples=None),
    "an extra key": reports("evaluate", extra=1.0),
    "a key that is missing": reports("evaluate", accuracy=None),
    "NaN": reports("evaluate", accuracy=math.nan),
    "infinity": reports("evaluate", accuracy=math.inf),
    "a list": reports("evaluate", accuracy=[0.5, 0.5]),
    "a train reply": lambda _, reply: retyped(reply, "train"),
    "nothing": lambda _, reply: Message(RecordDict(), reply_to=_),
}


def retyped(reply: Message, kind: str) -> Message:
    reply.metadata.message_type = kind
    return reply


def only_evaluate(lie: Lie) -> Lie:
    return lambda m, r: lie(m, r) if m.metadata.message_type == "evaluate" else r


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_one_evaluate_reply_harms_no_other(lie: Lie):
    """Three honest clients report an accuracy of 0.5 on 10 examples each."""
    grid = NotingGrid(lying(tiny_app(), {0: only_evaluate(lie)}), 4)
    strategy = ISTStrategy(AXES, fraction_evaluate=1.0)
    strategy.registry.meet(grid, grid.get_node_ids())
    messages = list(strategy.configure_evaluate(1, model()[1], ConfigRecord(), grid))
    assert len(messages) == 4
    metrics = strategy.aggregate_evaluate(1, list(grid.send_and_receive(messages)))
    assert metrics is not None
    assert metrics["accuracy"] == 0.5


def test_without_a_good_evaluate_reply_there_is_no_mean():
    grid = NotingGrid(lying(tiny_app(), dict.fromkeys(range(2), LIES["no examples"])), 2)
    strategy = ISTStrategy(AXES, fraction_evaluate=1.0)
    messages = list(strategy.configure_evaluate(1, model()[1], ConfigRecord(), grid))
    assert strategy.aggregate_evaluate(1, list(grid.send_and_receive(messages))) is None


def test_claims_are_bounded_by_what_the_others_told():
    """Of 10, 10, 10 and 10^6 examples the last count like 3 x 10: (3 x 0.5 x 10 + 30 x 1) / 60."""
    app = tiny_app(lambda k: {"num-examples": 10})
    grid = NotingGrid(lying(app, {0: reports("evaluate", num_examples=10**6, accuracy=1.0)}), 4)
    strategy = ISTStrategy(AXES, fraction_evaluate=1.0)
    messages = list(strategy.configure_evaluate(1, model()[1], ConfigRecord(), grid))
    metrics = strategy.aggregate_evaluate(1, list(grid.send_and_receive(messages)))
    assert metrics is not None
    assert metrics["accuracy"] == pytest.approx((3 * 0.5 * 10 + 30) / 60)


def test_metrics_are_made_alike_without_a_change_of_their_means():
    """b is in two of three reports: the third gets their mean, (1 x 1 + 3 x 5) / 4 = 4."""
    found = alike(
        [
            {"num-examples": 1.0, "b": 1.0, "only-here": 9.0},
            {"num-examples": 3.0, "b": 5.0},
            {"num-examples": 2.0},
        ]
    )
    assert [dict(record) for record in found] == [
        {"b": 1.0, "num-examples": 1.0},
        {"b": 5.0, "num-examples": 3.0},
        {"b": 4.0, "num-examples": 2.0},
    ]


TRAIN_LIES: dict[str, Lie] = {
    "no examples": reports("train", num_examples=0),
    "an extra key": reports("train", extra=1.0),
    "a key that is missing": reports("train", local_steps=None),
    "NaN": reports("train", local_steps=math.nan),
    "a query": lambda _, reply: retyped(reply, "query"),
    "an array record of another name": lambda _, reply: renamed(reply),
    "no metrics": lambda _, reply: without_metrics(reply),
}


def renamed(reply: Message) -> Message:
    (arrays,) = reply.content.array_records.values()
    (metrics,) = reply.content.metric_records.values()
    reply.content = RecordDict({"x": arrays, "y": metrics, "z": ConfigRecord()})
    return reply


def without_metrics(reply: Message) -> Message:
    reply.content = RecordDict({"arrays": reply.content["arrays"]})
    return reply


@pytest.mark.parametrize("lie", TRAIN_LIES.values(), ids=TRAIN_LIES)
def test_one_train_reply_does_not_end_the_run_of_flowers_fedavg(lie: Lie):
    """Each client adds 1 and a tenth of its number to all weights."""

    def only_train(message: Message, reply: Message) -> Message:
        return lie(message, reply) if message.metadata.message_type == "train" else reply

    noting = NotingGrid(lying(tiny_app(), {0: only_train}), 3)
    registry = ClientRegistry()
    registry.meet(noting, noting.get_node_ids())
    grid = FilteredGrid(noting, [AlikeReplies(registry, claim_bound=0.0), Meter()])
    strategy = FedAvg(min_train_nodes=3, min_available_nodes=3)
    messages = list(strategy.configure_train(1, tiny_model(), ConfigRecord(), grid))
    arrays, metrics = strategy.aggregate_train(1, list(grid.send_and_receive(messages)))
    assert isinstance(arrays, ArrayRecord)
    assert metrics is not None
    assert metrics["local-steps"] == pytest.approx(5)
    change = arrays["b"].numpy()[0] - 1
    assert any(change == pytest.approx(c) for c in (1.15, 1.1))  # clients 1 and 2, or all three


def test_flowers_fedavg_counts_no_claim_for_more_than_three_clients():
    """Clients told 10 examples each; client 0 says 10^6 in its reply, which is above its word."""
    noting = NotingGrid(lying(tiny_app(), {0: reports("train", num_examples=10**6)}), 4)
    registry = ClientRegistry()
    registry.meet(noting, noting.get_node_ids())
    good, report = judged_metrics(trained(noting), "train", registry, claim_bound=20)
    assert len(good) == 3
    assert len(report.refused) == 1
    for node_id, client in list(registry._known.items())[:1]:
        lie = {**client.facts, "num-examples": 10**6}
        registry._known[node_id] = Client(node_id, client.name, lie)
    good, report = judged_metrics(trained(noting), "train", registry, claim_bound=20)
    assert sorted(metrics["num-examples"] for _, metrics in good) == [10, 10, 10, 30]
    assert list(report.bounded.values()) == [(10**6, 30)]


def trained(grid: NotingGrid) -> list[Message]:
    content = RecordDict({"arrays": tiny_model(), "config": ConfigRecord({"server-round": 1})})
    messages = [Message(content, node, "train") for node in grid.get_node_ids()]
    return list(grid.send_and_receive(messages))


def test_a_metric_record_of_a_hundred_thousand_entries_is_read_to_64():
    record = MetricRecord({"num-examples": 5, **{f"m{k}": 1.0 for k in range(1000)}})
    message = Message(RecordDict(), dst_node_id=5, message_type="evaluate")
    reply = Message(RecordDict({"metrics": record}), reply_to=message)
    good, _ = judged_metrics([reply], "evaluate", ClientRegistry(), claim_bound=0.0)
    assert len(good[0][1]) == 64
