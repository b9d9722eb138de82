"""ISTStrategy: who gets what, what comes back, and what is refused."""

from __future__ import annotations

import logging
import math
import tracemalloc

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from flower_ist.classifier.mlp import mlp_shapes
from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.clients import TooFewClientsError
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.packed import Packed
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.partition import PartitionError
from flower_ist.wire.mod import packed_mod
from flower_ist.wire.record_tensors import record_of
from flower_ist.wire.size import round_trip
from tests.fakes.strategies import AXES, SilentGrid, arrays_of, configured, merged, model, reply


def test_each_client_gets_a_small_dense_net_and_the_rounds_settings():
    _, _, messages = configured(num_nodes=2)
    assert len({m.metadata.dst_node_id for m in messages}) == 2
    for message in messages:
        assert message.metadata.message_type == "train"
        shapes = {name: array.shape for name, array in arrays_of(message).items()}
        assert shapes == mlp_shapes([3, 4, 3, 2])
        config = message.content.config_records["config"]
        assert (config["server-round"], config["local-steps"]) == (1, 7)


def test_no_indices_are_sent():
    """Nothing but weights, and a config that is the same for slices of one size."""
    _, _, (one, other) = configured(num_nodes=2)
    assert one.content.config_records["config"] == other.content.config_records["config"]
    assert one.content.array_records["arrays"].keys() == AXES.shapes.keys()


@pytest.mark.parametrize("num_slices", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("num_nodes", [1, 2, 5, 8])
def test_untrained_slices_give_the_model_back_bit_for_bit(num_slices, num_nodes):
    strategy, weights, messages = configured(num_nodes, num_slices=num_slices)
    found = merged(strategy, [reply(m, arrays_of(m)) for m in messages])
    for name, tensor in weights.items():
        assert found[name].tobytes() == tensor.tobytes()


def test_three_clients_on_two_slices():
    """Someone shares a slice: two clients get the same arrays, the third gets the others."""
    _, _, messages = configured(num_nodes=3, num_slices=2)
    sent = [arrays_of(m)["fc1.weight"].tobytes() for m in messages]
    assert len(set(sent)) == 2


def test_fewer_clients_than_slices_leaves_some_at_rest():
    strategy, weights, messages = configured(num_nodes=1, num_slices=2)
    found = merged(
        strategy, [reply(m, {n: a + 1 for n, a in arrays_of(m).items()}) for m in messages]
    )
    changed = (found["fc1.bias"] != weights["fc1.bias"]).sum()
    assert changed == 4  # of 8
    # fc1 4x3+4, fc2 3x4+3, fc3 2x3, shared 2: 39 of 100 weights.
    assert strategy.last_round.coverage == 39 / 100


def test_partition_changes_from_round_to_round_and_follows_the_seed():
    first = arrays_of(configured(server_round=1)[2][0])["fc1.bias"]
    again = arrays_of(configured(server_round=1)[2][0])["fc1.bias"]
    later = arrays_of(configured(server_round=2)[2][0])["fc1.bias"]
    seeded = arrays_of(configured(server_round=1, seed=1)[2][0])["fc1.bias"]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, seeded)


def test_trained_slices_land_in_their_places():
    """Each client adds 1 to every weight: unscaled tensors of the whole model grow by 1."""
    strategy, weights, messages = configured(num_nodes=2)
    replies = [reply(m, {n: a + 1 for n, a in arrays_of(m).items()}) for m in messages]
    found = merged(strategy, replies)
    for name in ("fc1.weight", "fc1.bias", "fc2.bias", "fc3.bias"):
        np.testing.assert_allclose(found[name], weights[name] + 1, rtol=1e-6)
    # fc3 is summed over half of h2, so it was sent twice as large: 1 there is 1/2 here.
    np.testing.assert_allclose(found["fc3.weight"], weights["fc3.weight"] + 0.5, rtol=1e-5)


def test_shared_tensors_are_averaged_by_examples():
    strategy, weights, messages = configured(num_nodes=2)
    answers = []
    for message, shift, examples in zip(messages, (4, 8), (30, 10), strict=True):
        tensors = arrays_of(message)
        tensors["fc3.bias"] = tensors["fc3.bias"] + np.float32(shift)
        answers.append(reply(message, tensors, {"num-examples": examples}))
    found = merged(strategy, answers)
    np.testing.assert_allclose(found["fc3.bias"], weights["fc3.bias"] + 5, rtol=1e-6)


def bad_replies(message: Message) -> dict[str, Message]:
    """One reply for each thing that can be wrong, by the reason that must be logged."""
    good = arrays_of(message)
    metrics = MetricRecord({"num-examples": 10})
    arrays = ArrayRecord({name: Array(tensor) for name, tensor in good.items()})

    def with_tensor(name: str, tensor: np.ndarray) -> Message:
        return reply(message, {**good, name: tensor})

    def answer(**records: ArrayRecord | MetricRecord) -> Message:
        return Message(RecordDict(dict(records)), reply_to=message)

    inf = good["fc2.bias"].copy()
    inf[0] = np.inf
    return {
        "the client failed: ValueError: no": Message(
            Error(2, "Traceback\n  ...\nValueError: no"), reply_to=message
        ),
        "0 ArrayRecords": answer(metrics=metrics),
        "2 ArrayRecords": answer(one=arrays, other=arrays, metrics=metrics),
        "its metrics lack": answer(arrays=arrays),
        "lack the number 'num-examples'": answer(arrays=arrays, m=MetricRecord({"n": 1})),
        "its arrays are": answer(
            arrays=ArrayRecord({"fc1.weight": arrays["fc1.weight"]}), metrics=metrics
        ),
        "is float64": with_tensor("fc1.bias", good["fc1.bias"].astype(np.float64)),
        "instead of float32[": with_tensor("fc1.bias", np.zeros(99, np.float32)),
        "not finite numbers": with_tensor("fc2.bias", inf),
        "'fc3.bias' holds": with_tensor("fc3.bias", np.full(2, np.nan, np.float32)),
        "'num-examples' is 0": reply(message, good, {"num-examples": 0}),
        "'num-examples' is -5": reply(message, good, {"num-examples": -5}),
        "'num-examples' is nan": reply(message, good, {"num-examples": math.nan}),
        "'num-examples' is inf": reply(message, good, {"num-examples": math.inf}),
        "'num-examples' is 0.5": reply(message, good, {"num-examples": 0.5}),
        "'num-examples' is 100000001": reply(message, good, {"num-examples": 10**8 + 1}),
        "a weight of 1e+06": with_tensor("fc1.bias", np.full(4, 1e6, np.float32)),
    }


@pytest.mark.parametrize("reason", list(bad_replies(configured()[2][0])))
def test_a_bad_reply_is_refused_alone_and_its_slice_keeps_its_values(reason, caplog):
    strategy, weights, (bad, good) = configured(num_nodes=2)
    trained = {name: tensor + 1 for name, tensor in arrays_of(good).items()}
    with caplog.at_level(logging.WARNING, "flwr"):
        found = merged(strategy, [bad_replies(bad)[reason], reply(good, trained)])
    assert reason in caplog.text
    (refusal,) = strategy.last_round.refused.values()
    assert reason in refusal
    changed = found["fc1.bias"] != weights["fc1.bias"]
    kept = ~changed
    assert changed.sum() == 4
    assert found["fc1.weight"][kept].tobytes() == weights["fc1.weight"][kept].tobytes()


def test_more_examples_than_the_client_said_it_has():
    """At the query it said 10; in its reply it claims 11, which would raise its share of means."""

    class Honest(SilentGrid):
        def send_and_receive(self, messages, *, timeout=None):
            facts = ConfigRecord({"client-name": "a", "num-examples": 10})
            return [Message(RecordDict({"facts": facts}), reply_to=m) for m in messages]

    strategy = ISTStrategy(AXES, min_train_nodes=1, min_available_nodes=1)
    (message,) = strategy.configure_train(1, model()[1], ConfigRecord(), Honest(1))
    claims_too_many = reply(message, arrays_of(message), {"num-examples": 11})
    with pytest.raises(TrainingFailedError, match="a: 'num-examples' is 11, not between 1 and 10"):
        strategy.aggregate_train(1, [claims_too_many])


def test_what_a_client_writes_is_logged_short_and_printable(caplog):
    strategy, _, (bad, good) = configured(num_nodes=2)
    broken = ArrayRecord({"\x1b[2J" * 10**5: Array(np.zeros(1))})
    answer = Message(
        RecordDict({"arrays": broken, "m": MetricRecord({"num-examples": 1})}), reply_to=bad
    )
    merged(strategy, [answer, reply(good, arrays_of(good))])
    (reason,) = strategy.last_round.refused.values()
    assert len(reason) < 400
    assert reason.isprintable()


def test_other_records_in_a_reply_are_left_alone():
    strategy, _, messages = configured(num_nodes=2)
    answers = [reply(m, {n: t + 1 for n, t in arrays_of(m).items()}) for m in messages]
    for answer in answers:
        answer.content["stats"] = ArrayRecord({"mean": Array(np.zeros(3))})
        answer.content["timing"] = MetricRecord({"seconds": 3.0})
    merged(strategy, answers)
    assert strategy.last_round.refused == {}


def test_a_model_that_has_overflowed_is_not_sent():
    weights, _ = model()
    weights["fc2.weight"][:] = 3e38
    record = ArrayRecord({name: Array(w) for name, w in weights.items()})
    strategy = ISTStrategy(
        AXES, num_slices=2, max_weight=math.inf, min_train_nodes=1, min_available_nodes=1
    )
    message, _ = strategy.configure_train(1, record, ConfigRecord(), SilentGrid(2))
    with (
        np.errstate(over="ignore"),
        pytest.raises(TrainingFailedError, match="of the model has overflowed"),
    ):
        round_trip(message)


def test_no_reply_and_two_replies(caplog):
    strategy, _, (silent, eager) = configured(num_nodes=2)
    answer = reply(eager, arrays_of(eager))
    with caplog.at_level(logging.WARNING, "flwr"):
        merged(strategy, [answer, answer])
    assert "no reply came in time" in caplog.text
    assert "it answered twice" in caplog.text
    assert silent is not eager


@pytest.mark.parametrize(("good", "needed"), [(0, 1), (1, 2)])
def test_too_few_good_replies_stop_the_run(good, needed):
    strategy, _, messages = configured(num_nodes=2, min_train_nodes=needed)
    answers = [Message(Error(2, "RuntimeError: broken"), reply_to=m) for m in messages]
    answers[:good] = [reply(m, arrays_of(m)) for m in messages[:good]]
    message = f"Round 1: {good} of 2 replies were good.*min_train_nodes is {needed}.*broken"
    with pytest.raises(TrainingFailedError, match=message):
        strategy.aggregate_train(1, answers)


def test_a_client_without_the_mod_is_told_what_to_do():
    strategy, _, messages = configured(num_nodes=1)
    reason = "TypeError: Unsupported serialization type for numpy conversion: 'flower-ist.flat.1'"
    with pytest.raises(TrainingFailedError, match=r"mods=\[packed_mod\]"):
        strategy.aggregate_train(1, [Message(Error(2, reason), reply_to=messages[0])])


def test_metrics_are_averaged_by_examples():
    strategy, _, (one, other) = configured(num_nodes=2)
    answers = [
        reply(one, arrays_of(one), {"num-examples": 1, "train-loss": 2.0, "x": math.nan}),
        reply(other, arrays_of(other), {"num-examples": 3, "train-loss": 6.0, "x": 1.0}),
    ]
    _, metrics = strategy.aggregate_train(1, answers)
    assert metrics == MetricRecord({"train-loss": 5.0, "x": 1.0})


def test_sampling_is_seeded_and_fractional():
    def sampled(**options: object) -> set[int]:
        _, _, messages = configured(num_nodes=10, fraction_train=0.5, num_slices=2, **options)
        return {m.metadata.dst_node_id for m in messages}

    assert len(sampled()) == 5
    assert sampled() == sampled()
    assert sampled() != sampled(server_round=2)


def test_too_few_nodes():
    with pytest.raises(TooFewClientsError, match="4 SuperNodes are needed, 2 are connected"):
        configured(num_nodes=2, min_available_nodes=4, node_timeout=0.0)


def test_more_slices_than_neurons_is_refused_at_once():
    with pytest.raises(PartitionError, match="6 neurons cannot be divided into 7 slices"):
        ISTStrategy(AXES, num_slices=7)


def test_a_model_of_other_arrays_is_refused():
    strategy = ISTStrategy(AXES, min_train_nodes=1, min_available_nodes=1)
    record = ArrayRecord({"w": Array(np.zeros(3))})
    with pytest.raises(ValueError, match="but axes are declared for"):
        strategy.configure_train(1, record, ConfigRecord(), SilentGrid(2))


def test_summary_names_its_own_settings(caplog):
    with caplog.at_level(logging.INFO, "flwr"):
        ISTStrategy(AXES, num_slices=2, seed=5).summary()
    for text in ("Independent Subnetwork", "Slices: 2", "39.00 to 39.00 % of 100", "Seed: 5"):
        assert text in caplog.text


def test_a_record_that_somebody_keeps_is_never_written_again():
    """The model of each round is made in the memory of an older one, but only if that is free."""
    strategy, _, messages = configured(num_nodes=2)
    kept, copies = [], []
    for server_round in range(1, 6):
        replies = [reply(m, {n: a + 1 for n, a in arrays_of(m).items()}) for m in messages]
        record, _ = strategy.aggregate_train(server_round, replies)
        if server_round % 2:
            kept.append(record)
            copies.append({name: array.numpy() for name, array in record.items()})
        messages = list(
            strategy.configure_train(server_round + 1, record, ConfigRecord(), SilentGrid(2))
        )
    for record, copy in zip(kept, copies, strict=True):
        for name, tensor in copy.items():
            np.testing.assert_array_equal(record[name].numpy(), tensor)


def test_a_round_holds_a_new_model_and_a_few_slices_however_many_clients_there_are():
    """A model of 4 MB for 16 clients: a slice is 0.25 MB, and all of them would be another 4 MB.

    While a round runs the new model is written beside the one that was handed out. The clients, in
    this process too, hold some slices at a time. Nothing else may grow with the model.
    """
    shapes = mlp_shapes((500, 2048, 10))
    axes = mlp_axes(shapes)
    weights = {name: np.full(shape, 0.01, np.float32) for name, shape in shapes.items()}
    size = sum(w.nbytes for w in weights.values())
    app = ClientApp(mods=[packed_mod])

    @app.train()
    def echo(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 10})
        content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        return Message(content, reply_to=message)

    strategy = ISTStrategy(axes, num_slices=16, min_train_nodes=1, min_available_nodes=1)
    grid = FilteredGrid(InProcessGrid(app, 16), [Packed("int8", "int8")])
    record = record_of(weights)
    strategy.configure_train(1, record, ConfigRecord(), grid)  # asks the clients for their names
    tracemalloc.start()
    try:
        replies = grid.send_and_receive(strategy.configure_train(1, record, ConfigRecord(), grid))
        strategy.aggregate_train(1, replies)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert strategy.last_round.coverage == 1.0
    assert size < peak < 1.75 * size
