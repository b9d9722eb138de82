"""Every scheme as a Flower strategy: who gets what, what it costs, that it learns."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from hypothesis import given
from hypothesis import strategies as st

from client_app.app import app as client_app
from flower_ist.classifier.ensemble import ensemble_of
from flower_ist.classifier.evaluate import evaluate_arrays, evaluate_model
from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.packed import Packed
from flower_ist.strategies.slice_message import slice_message
from flower_ist.strategies.submodel import ISTStrategy, SubmodelStrategy
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut
from flower_ist.submodels.partition import PartitionError, slice_turns
from flower_ist.submodels.schemes import SCHEMES, SubmodelScheme
from flower_ist.tokens.shard import open_shard
from flower_ist.wire.layout import layout_to_text
from flower_ist.wire.protocol import LAYOUT_KEY, LR_SCALES_KEY
from flower_ist.wire.size import payload_bytes, wire_bytes
from tests.fakes.strategies import AXES, SilentGrid, arrays_of, merged, model, reply

CAPACITIES = [0.5, 0.25, 0.125, 0.125]
OPTIONS: dict[str, dict[str, Any]] = {
    name: {} if scheme.disjoint else {"capacities": CAPACITIES} for name, scheme in SCHEMES.items()
}


def sent_by(strategy: SubmodelStrategy, num_nodes: int, server_round: int = 1) -> list[Message]:
    record = model()[1]
    return list(
        strategy.configure_train(server_round, record, ConfigRecord(), SilentGrid(num_nodes))
    )


def quick(scheme: str | SubmodelScheme, **options: Any) -> SubmodelStrategy:
    few = {"min_train_nodes": 1, "min_available_nodes": 1}
    return SubmodelStrategy(AXES, scheme=scheme, **few, **options)


def widths_of(message: Message) -> tuple[int, int]:
    arrays = arrays_of(message)
    return len(arrays["fc1.bias"]), len(arrays["fc2.bias"])


@pytest.mark.parametrize("name", list(SCHEMES))
@pytest.mark.parametrize("num_nodes", [1, 4, 6])
@pytest.mark.parametrize("server_round", [1, 5])
def test_untrained_slices_give_the_model_back_bit_for_bit(name, num_nodes, server_round):
    strategy = quick(name, **OPTIONS[name])
    messages = sent_by(strategy, num_nodes, server_round)
    found = merged(strategy, [reply(m, arrays_of(m)) for m in messages])
    for tensor_name, tensor in model()[0].items():
        assert found[tensor_name].tobytes() == tensor.tobytes()


def test_the_ist_scheme_sends_what_the_ist_strategy_sends():
    few = {"min_train_nodes": 1, "min_available_nodes": 1, "seed": 3}
    ours = sent_by(SubmodelStrategy(AXES, scheme="ist", **few), 3)
    theirs = sent_by(ISTStrategy(AXES, **few), 3)
    for one, other in zip(ours, theirs, strict=True):
        for name, tensor in arrays_of(one).items():
            assert tensor.tobytes() == arrays_of(other)[name].tobytes()


@pytest.mark.parametrize("name", ["federated-dropout", "heterofl", "fedrolex"])
def test_a_client_holds_its_capacity_in_every_round(name):
    """Of 8 and 6 neurons: 4 and 3, 2 and 2 (1.5 rounded up), 1 and 1, 1 and 1, and from the start
    again for a fifth client."""
    strategy = quick(name, capacities=CAPACITIES)
    for server_round in (1, 2):
        sizes = [widths_of(m) for m in sent_by(strategy, 5, server_round)]
        assert sizes == [(4, 3), (2, 2), (1, 1), (1, 1), (4, 3)]


def test_a_client_keeps_its_capacity_where_few_are_sampled():
    strategy = quick("heterofl", capacities=[1, 0.5, 0.125], fraction_train=0.4)
    grid = SilentGrid(6)
    of_node = dict(zip(grid.get_node_ids(), [8, 4, 1] * 2, strict=True))
    seen = set()
    for server_round in range(1, 20):
        for message in strategy.configure_train(server_round, model()[1], ConfigRecord(), grid):
            assert widths_of(message)[0] == of_node[message.metadata.dst_node_id]
            seen.add(message.metadata.dst_node_id)
    assert seen == of_node.keys()


def test_ist_with_capacities_lets_rest_what_nobody_can_hold():
    """Shares .25 .25 and .5 that rests: one neuron each, then of 5 in h1 1.25 1.25 2.5, the odd
    one for the largest remainder (2, 2, 4), and of 3 in h2 .75 .75 1.5 (2, 2, 2)."""
    strategy = quick("ist", capacities=[0.25])
    messages = sent_by(strategy, 2)
    assert [widths_of(m) for m in messages] == [(2, 2), (2, 2)]
    found = merged(
        strategy, [reply(m, {n: a + 1 for n, a in arrays_of(m).items()}) for m in messages]
    )
    changed = found["fc1.bias"] != model()[0]["fc1.bias"]
    assert changed.sum() == 4


def test_the_plain_mean_and_the_mean_by_examples():
    """Neuron 0 of h1 is at both clients: biases 2 (10 examples) and 8 (30 examples)."""
    expected = {"heterofl": 5.0, "fedrolex": 5.0, "federated-dropout": 6.5}
    for name, mean in expected.items():
        strategy = quick(name, capacities=[1.0])
        answers = []
        for message, bias, examples in zip(sent_by(strategy, 2), (2, 8), (10, 30), strict=True):
            tensors = arrays_of(message)
            for bias_name in ("fc1.bias", "fc3.bias"):  # cut by capacity, and shared
                tensors[bias_name] = np.full_like(tensors[bias_name], bias)
            answers.append(reply(message, tensors, {"num-examples": examples}))
        found = merged(strategy, answers)
        np.testing.assert_allclose(found["fc1.bias"], mean, rtol=1e-6)
        np.testing.assert_allclose(found["fc3.bias"], mean, rtol=1e-6)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_steps_follow_the_scale_of_the_scheme(name):
    """Half of h1 (8) and of h2 (6): fc2 and fc3 weights are twice as large, FedRolex's are not."""
    (message, _) = sent_by(quick(name, capacities=[0.5]), 2)
    scales = json.loads(str(message.content.config_records["config"][LR_SCALES_KEY]))
    assert scales == ({} if name == "fedrolex" else {"fc2.weight": 2.0, "fc3.weight": 2.0})
    if name == "heterofl":
        weights = model()[0]
        assert np.array_equal(arrays_of(message)["fc3.weight"], 2 * weights["fc3.weight"][:, :3])
    if name == "fedrolex":
        weights = model()[0]
        assert np.array_equal(arrays_of(message)["fc3.weight"], weights["fc3.weight"][:, :3])


def test_static_scaler_of_heterofl_is_the_scale_of_the_weights_behind_it():
    """relu(W1 x + b1) / r through W2 is what (W2 / r) gives: r = 1/2, exact in floating point."""
    weights = initial_weights([3, 8, 2], seed=0)
    axes = mlp_axes(mlp_shapes([3, 8, 2]))
    (part,) = SCHEMES["heterofl"].draw(0, 1, axes.widths, [0.5])
    tokens = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    hidden = np.maximum(tokens @ weights["fc1.weight"][:4].T + weights["fc1.bias"][:4], 0)
    scaler = (hidden / 0.5) @ weights["fc2.weight"][:, :4].T + weights["fc2.bias"]
    found = ensemble_of(weights, [Cut(axes, part)])(tokens)
    np.testing.assert_allclose(found, scaler, rtol=1e-5)


def test_wire_bytes_of_half_a_model_by_hand():
    """HeteroFL with half the neurons of 768-1024-1024-10: a dense net 768-512-512-10.

    768 x 512 + 512 + 512 x 512 + 512 + 512 x 10 + 10 = 661,514 weights of 4 bytes.
    """
    dims = [768, 1024, 1024, 10]
    axes = mlp_axes(mlp_shapes(dims))
    (part,) = SCHEMES["heterofl"].draw(0, 1, axes.widths, [0.5])
    sent = slice_message(initial_weights(dims, 0), Cut(axes, part), 5, ConfigRecord())
    (message,) = Packed().down([sent])
    assert payload_bytes(message) == 4 * 661_514
    layout = {name: (np.dtype("<f4"), s) for name, s in mlp_shapes([768, 512, 512, 10]).items()}
    assert message.content.config_records["config"][LAYOUT_KEY] == layout_to_text(layout)
    # No index and no second copy: what is not weights is names, layout and Flower's envelope.
    assert 0 < wire_bytes(message) - 4 * 661_514 < 2_000


def run(blobs: Path, strategy: SubmodelStrategy, num_rounds: int = 5) -> dict[str, np.ndarray]:
    grid = InProcessGrid(client_app, 4, {"data-dir": str(blobs)})
    weights = initial_weights([12, 30, 30, 3], seed=0)
    settings = {"local-steps": 10, "batch-size": 16, "learning-rate": 0.01, "seed": 0}
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(w) for name, w in weights.items()}),
        num_rounds=num_rounds,
        train_config=ConfigRecord(settings),
    )
    return {name: array.numpy() for name, array in result.arrays.items()}


BLOB_AXES = mlp_axes(mlp_shapes([12, 30, 30, 3]))


@pytest.mark.parametrize("name", list(SCHEMES))
def test_learns_above_chance(blobs, name):
    """Three classes: chance is a third."""
    found = run(blobs, SubmodelStrategy(BLOB_AXES, scheme=name, **OPTIONS[name]))
    accuracy, _ = evaluate_arrays(found, open_shard(blobs / "test"))
    assert accuracy > 0.7


@pytest.mark.parametrize("name", ["ist", "federated-dropout"])
def test_the_same_seed_gives_the_same_model_bit_for_bit(blobs, name):
    one, other = (
        run(blobs, SubmodelStrategy(BLOB_AXES, scheme=name, **OPTIONS[name]), num_rounds=2)
        for _ in range(2)
    )
    assert all(other[key].tobytes() == tensor.tobytes() for key, tensor in one.items())


def test_the_ensemble_of_narrow_nets_is_evaluated_both_ways(blobs):
    found = run(blobs, SubmodelStrategy(BLOB_AXES, scheme="ist-fixed"))
    slots = SCHEMES["ist-fixed"].draw(0, 99, BLOB_AXES.widths, [1] * 4)
    cuts = [Cut(BLOB_AXES, slot) for slot in slots]
    shard = open_shard(blobs / "test")
    net = ensemble_of(found, cuts)
    accuracy, loss = evaluate_model(net, shard)
    tokens, labels = shard.batch()
    logits = net(tokens)
    assert accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean())
    assert accuracy > 0.7
    assert loss != evaluate_arrays(found, shard)[1]
    # Weights between neurons of different nets are as they were.
    first = initial_weights([12, 30, 30, 3], seed=0)["fc2.weight"]
    trained = found["fc2.weight"] != first
    within = np.zeros((30, 30), bool)
    for slot in slots:
        within[np.ix_(slot["h2"], slot["h1"])] = True
    assert not trained[~within].any()
    assert trained[within].any()


def test_with_one_hidden_layer_the_whole_net_is_the_ensemble():
    """With equal slices the mean of the slices' logits is what the whole net computes."""
    weights = initial_weights([5, 12, 4], seed=1)
    axes = mlp_axes(mlp_shapes([5, 12, 4]))
    cuts = [Cut(axes, slot) for slot in SCHEMES["ist-fixed"].draw(0, 1, axes.widths, [1] * 3)]
    tokens = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    whole = np.maximum(tokens @ weights["fc1.weight"].T + weights["fc1.bias"], 0)
    whole = whole @ weights["fc2.weight"].T + weights["fc2.bias"]
    np.testing.assert_allclose(ensemble_of(weights, cuts)(tokens), whole, atol=1e-5)


def slices_sent(strategy: SubmodelStrategy, num_nodes: int, server_round: int) -> set[bytes]:
    return {
        arrays_of(message)["fc1.weight"].tobytes()
        for message in sent_by(strategy, num_nodes, server_round)
    }


def test_with_fewer_clients_than_narrow_nets_every_net_has_its_turns():
    """Three clients on four nets: in four rounds each is sent three times, to one client each."""
    strategy = quick("ist-fixed", num_slices=4)
    sent = [slices_sent(strategy, 3, server_round) for server_round in (1, 2, 3, 4)]
    assert [len(slices) for slices in sent] == [3] * 4
    nets = slices_sent(quick("ist-fixed", num_slices=4), 4, 1)
    assert [sum(net in slices for slices in sent) for net in nets] == [3] * 4
    # What a round sends follows from the round alone, so a run that goes on sends the same.
    assert slices_sent(quick("ist-fixed", num_slices=4), 3, 3) == sent[2]


def test_with_half_of_the_clients_every_net_has_its_turns():
    """As many nets as clients, of which half are asked: two rounds reach all four nets."""
    strategy = quick("ist-fixed", num_slices=4, fraction_train=0.5)
    sent = [slices_sent(strategy, 4, server_round) for server_round in (1, 2)]
    assert [len(slices) for slices in sent] == [2, 2]
    assert len(sent[0] | sent[1]) == 4


@given(
    data=st.data(), num_slices=st.integers(2, 12), seed=st.integers(0, 99), epoch=st.integers(0, 9)
)
def test_slices_have_equally_many_turns(data, num_slices, seed, epoch):
    """n clients make K n turns in K rounds: n for each of K slices."""
    num_clients = data.draw(st.integers(1, num_slices - 1))
    rounds = range(epoch * num_slices + 1, (epoch + 1) * num_slices + 1)
    turns = [slice_turns(seed, r, num_slices, num_clients).tolist() for r in rounds]
    assert all(len(set(chosen)) == num_clients for chosen in turns)
    counts = np.bincount(np.concatenate(turns), minlength=num_slices)
    assert counts.tolist() == [num_clients] * num_slices


def test_no_slice_is_left_out_where_the_number_of_clients_varies():
    """One and two clients by turns are 6 turns in 4 rounds: 600 in 400, 150 for each of 4 slices.

    In 4 rounds they take the places 0, 2 3, 2, 2 3 of the order, so a slice has 1, 0, 3 or 2 turns:
    a variance of 5 / 4. In 100 orders that is a standard deviation of 11.2; four are allowed.
    """
    turns = [slice_turns(3, r, 4, 1 + (r % 2 == 0)) for r in range(1, 401)]
    counts = np.bincount(np.concatenate(turns), minlength=4)
    assert counts.sum() == 600
    assert (np.abs(counts - 150) < 45).all()


def test_a_scheme_of_your_own():
    """The last neurons instead of the first: one function, and the rest is there."""

    def last(seed, server_round, widths, shares):
        return [{n: np.arange(w - int(s * w), w) for n, w in widths.items()} for s in shares]

    strategy = quick(SubmodelScheme("last", "Last neurons", last, disjoint=False), capacities=[0.5])
    (message,) = sent_by(strategy, 1)
    assert np.array_equal(arrays_of(message)["fc1.bias"], model()[0]["fc1.bias"][4:])


def test_summary_names_the_scheme_and_its_capacities(caplog):
    with caplog.at_level(logging.INFO, "flwr"):
        quick("fedrolex", capacities=[0.5, 0.25]).summary()
    for text in ("FedRolex", "Capacities of the clients: [0.5, 0.25]", "Seed: 0"):
        assert text in caplog.text


@pytest.mark.parametrize("name", ["heterofl", "federated-dropout", "fedrolex"])
def test_schemes_that_overlap_need_capacities(name):
    with pytest.raises(PartitionError, match="give capacities"):
        quick(name)


def test_metrics_stay_weighted_by_examples_where_weights_are_not():
    strategy = quick("heterofl", capacities=[0.5])
    one, other = sent_by(strategy, 2)
    answers = [
        reply(one, arrays_of(one), {"num-examples": 1, "train-loss": 2.0}),
        reply(other, arrays_of(other), {"num-examples": 3, "train-loss": 6.0}),
    ]
    assert strategy.aggregate_train(1, answers)[1] == MetricRecord({"train-loss": 5.0})
