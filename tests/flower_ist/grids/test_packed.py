"""Any strategy over a grid that sends fewer bits: full precision kept, replies judged, bytes."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

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
from flwr.serverapp.strategy import FedAvg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_app.app import app as real_client
from flower_ist.classifier import initial
from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.grids.chain import FilteredGrid
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.metered import Meter, MeteredGrid
from flower_ist.grids.packed import Packed
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.strategies.closed_form import ClosedFormStrategy, empty_head
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.submodels.axes import Axes, mlp_axes
from flower_ist.tokens import demo as demo_tokens
from flower_ist.tokens.shard import open_shard
from flower_ist.wire.layout import WireError, layout_of
from flower_ist.wire.mod import packed_mod
from flower_ist.wire.packing import pack
from flower_ist.wire.protocol import CODEC_KEY, LAYOUT_KEY, PACKED_KEY, REFUSED_CODE
from flower_ist.wire.record_tensors import record_of
from flower_ist.wire.size import round_trip
from server_app.app import app as real_server
from tests.fakes import tiny
from tests.fakes.strategies import AXES, SilentGrid, arrays_of, model

SMALL = ("float16", "int8", "int4")
FEW = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}


def shifting_app(shift: float = 0.0, seen: list | None = None) -> ClientApp:
    """Make a ClientApp with the mod that adds a number to every weight."""
    app = ClientApp(mods=[packed_mod])

    @app.train()
    def train(message: Message, _: Context) -> Message:
        arrays = {n: a.numpy() for n, a in message.content.array_records["arrays"].items()}
        if seen is not None:
            seen.append((arrays, dict(message.content.config_records["config"])))
        moved = {n: np.asarray(a + np.float32(shift), a.dtype) for n, a in arrays.items()}
        trained = ArrayRecord({n: Array(a) for n, a in moved.items()})
        metrics = MetricRecord({"num-examples": 10})
        return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=message)

    return app


def ist(**options: object) -> ISTStrategy:
    return ISTStrategy(AXES, **{**FEW, **options})  # type: ignore[arg-type]


def one_round(strategy: FedAvg, grid: FilteredGrid, record: ArrayRecord) -> dict[str, np.ndarray]:
    messages = strategy.configure_train(1, record, ConfigRecord({"lr": 0.1}), grid)
    arrays, _ = strategy.aggregate_train(1, list(grid.send_and_receive(messages)))
    assert arrays is not None
    return {name: array.numpy() for name, array in arrays.items()}


STRATEGIES = {
    "fedavg": lambda: FedAvg(**FEW),
    "ist": ist,
}


@pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize("down", SMALL)
@pytest.mark.parametrize("up", ["float32", *SMALL])
def test_rounding_on_the_way_down_never_enters_the_model(make, down, up):
    """Clients that change nothing leave every bit as it was, whatever they were sent."""
    weights, record = model()
    grid = FilteredGrid(InProcessGrid(shifting_app(), 2), [Packed(down, up)])
    for name, tensor in one_round(make(), grid, record).items():
        assert tensor.tobytes() == weights[name].tobytes()


@pytest.mark.parametrize("name", ["fedavg", "ist"])
def test_tensors_without_axes_pass_for_any_strategy(name):
    """A logit scale, and BatchNorm's counter, which FedAvg makes a float of in round 2."""
    weights = {"w": np.ones((4, 2), np.float32), "scale": np.float32(2), "n": np.int64(0)}
    record = ArrayRecord({name: Array(np.asarray(w)) for name, w in weights.items()})
    strategy: Any = FedAvg(**FEW)
    if name == "ist":
        axes = Axes.declare({n: np.shape(w) for n, w in weights.items()}, {"w": ("h", None)})
        strategy = ISTStrategy(axes, **FEW)
    grid = FilteredGrid(InProcessGrid(shifting_app(), 2), [Packed("int8", "int8")])
    for server_round in (1, 2):
        messages = list(strategy.configure_train(server_round, record, ConfigRecord(), grid))
        record, _ = strategy.aggregate_train(server_round, grid.send_and_receive(messages))
    assert record is not None
    shapes = {name: array.shape for name, array in record.items()}
    assert shapes == {"w": (4, 2), "scale": (), "n": ()}
    assert record["scale"].numpy() == 2


@pytest.mark.parametrize("up", ["float32", *SMALL])
def test_changes_are_added_to_the_strategys_own_weights(up):
    """Every weight moves by 0.5, the largest number of its row: exact in each dtype but int8.

    There and in int4 the scale 0.5 / L is rounded up by less than 2^-7, and so a change is wrong
    by less than one step: 0.5 (1 + 2^-7) / L.
    """
    weights, record = model()
    grid = FilteredGrid(InProcessGrid(shifting_app(0.5), 2), [Packed("int4", up)])
    found = one_round(FedAvg(**FEW), grid, record)
    levels = {"int8": 127, "int4": 7}.get(up, 1e5)
    for name, tensor in found.items():
        assert np.abs(tensor - (weights[name] + 0.5)).max() <= 0.51 / levels + 1e-6


def test_clients_get_rounded_weights_and_no_trace_of_the_codec():
    weights, record = model()
    seen: list = []
    grid = FilteredGrid(InProcessGrid(shifting_app(0, seen), 1), [Packed("int8", "int8")])
    one_round(FedAvg(**FEW), grid, record)
    ((arrays, config),) = seen
    assert config == {"lr": 0.1, "server-round": 1}
    for name, weight in weights.items():
        assert (arrays[name].dtype, arrays[name].shape) == (np.float32, weight.shape)
        assert 0 < np.abs(arrays[name] - weight).max() <= np.abs(weight).max() / 250


def test_slices_are_rounded_on_their_own_scale():
    """A slice's weights are H / n times the model's: rounding follows, and lr-scales pass."""
    seen: list = []
    _, record = model()
    grid = FilteredGrid(InProcessGrid(shifting_app(0, seen), 2), [Packed("int8", "int8")])
    strategy = ist()
    sent = [arrays_of(m) for m in strategy.configure_train(1, record, ConfigRecord(), grid)]
    one_round(strategy, grid, record)
    for (arrays, config), slice_ in zip(seen, sent, strict=True):
        assert "lr-scales" in config
        for name, tensor in slice_.items():
            assert np.abs(arrays[name] - tensor).max() <= np.abs(tensor).max() / 250


def test_float32_both_ways_is_one_array_without_a_codec():
    """As strategies sent slices before: a layout beside the array, and no change to be added."""
    packed = Packed()
    messages = FedAvg(**FEW).configure_train(1, model()[1], ConfigRecord(), SilentGrid(2))
    for message in packed.down(list(messages)):
        assert list(message.content["arrays"]) == [PACKED_KEY]
        assert LAYOUT_KEY in message.content["config"]
        assert CODEC_KEY not in message.content["config"]


def test_unknown_dtypes_are_refused():
    for dtypes in (("int2", "int8"), ("int8", "int2")):
        with pytest.raises(WireError, match="no wire dtype 'int2'"):
            Packed(*dtypes)


# DIMS 3-8-6-2: rows 8 + 6 + 2 of 24 + 48 + 12 weights, and 16 biases.
WHOLE = {"float32": 400, "float16": 200, "int8": 84 + 32 + 32, "int4": 42 + 32 + 32}


@pytest.mark.parametrize("down", WHOLE)
@pytest.mark.parametrize("up", WHOLE)
def test_the_meter_sees_compressed_bytes(down, up):
    meter = MeteredGrid(InProcessGrid(shifting_app(1), 2))
    one_round(FedAvg(**FEW), FilteredGrid(meter, [Packed(down, up)]), model()[1])
    total = meter.traffic(1).total
    assert total.payload_bytes_down == 2 * WHOLE[down]
    assert total.payload_bytes_up == 2 * WHOLE[up]
    assert total.wire_bytes_down < 2 * (WHOLE[down] + 4000)


def test_replies_repeat_and_differ_by_seed_round_and_client():
    def codecs(seed: int, server_round: int) -> list[str]:
        packed = Packed("int8", "int4", seed=seed)
        sent = FedAvg(**FEW).configure_train(
            server_round, model()[1], ConfigRecord(), SilentGrid(2)
        )
        messages = list(packed.down(sent))
        return sorted(str(m.content["config"][CODEC_KEY]) for m in messages)

    first = codecs(0, 1)
    assert first == codecs(0, 1)
    assert len({*first, *codecs(0, 2), *codecs(1, 1)}) == 6


def test_a_strategys_own_records_are_not_touched():
    """FedAvg uses one config and one ArrayRecord for all clients and rounds."""
    _, record = model()
    messages = list(FedAvg(**FEW).configure_train(1, record, ConfigRecord(), SilentGrid(2)))
    outgoing = list(Packed("int8", "int8").down(messages))
    for before, after in zip(messages, outgoing, strict=True):
        assert before.content["arrays"] is record
        assert LAYOUT_KEY not in before.content["config"]
        assert list(after.content["arrays"]) == [PACKED_KEY]
        assert after.metadata.dst_node_id == before.metadata.dst_node_id
    assert outgoing[0].content["arrays"] is outgoing[1].content["arrays"]


def test_other_messages_pass_as_they_are():
    packed = Packed("int8", "int8")
    grid = FilteredGrid(InProcessGrid(tiny.tiny_app(), 1), [packed])
    content = RecordDict({"arrays": tiny.model(), "config": ConfigRecord({"server-round": 1})})
    for kind in ("evaluate", "query"):
        message = Message(content, next(iter(grid.get_node_ids())), kind)
        assert list(packed.down([message])) == [message]
        (reply,) = grid.send_and_receive([message])
        assert not reply.has_error()


def test_statistics_pass_as_they_are():
    plain = MeteredGrid(InProcessGrid(real_client, 2))
    small = MeteredGrid(InProcessGrid(real_client, 2))
    heads = []
    for grid in (plain, FilteredGrid(small, [Packed("int8", "int8")])):
        strategy = ClosedFormStrategy(method="fedncm", min_train_nodes=2)
        heads.append(one_round_of_statistics(strategy, grid))
    assert heads[0] == heads[1]
    assert plain.traffic(1).total.payload_bytes_up == small.traffic(1).total.payload_bytes_up


def one_round_of_statistics(strategy: ClosedFormStrategy, grid: FilteredGrid) -> list[bytes]:
    meta = demo_tokens.test_shard().meta
    start = empty_head(meta.dim, meta.num_classes)
    messages = strategy.configure_train(1, start, ConfigRecord(), grid)
    arrays, _ = strategy.aggregate_train(1, grid.send_and_receive(messages))
    assert arrays is not None
    return [array.data for array in arrays.values()]


def test_several_array_records_are_refused():
    content = RecordDict({"arrays": tiny.model(), "controls": tiny.model()})
    grid = FilteredGrid(SilentGrid(1), [Packed("int8", "int8")])
    with pytest.raises(WireError, match="one ArrayRecord, but this one has 2"):
        grid.send_and_receive([Message(content, 5, "train")])


def test_a_model_that_has_overflowed_is_refused():
    _, record = model()
    record["fc1.weight"] = Array(np.full((8, 3), np.inf, np.float32))
    grid = FilteredGrid(SilentGrid(1), [Packed("int8", "int8")])
    with pytest.raises(WireError, match=r"'fc1.weight' holds .* use a smaller learning rate"):
        one_round(FedAvg(**FEW), grid, record)


def test_clients_without_the_mod_are_told_what_to_do():
    """The sentence is in the strategy's error and, for Flower's strategies, in the run log's."""
    meter = Meter()
    grid = InProcessGrid(tiny.tiny_app(), 2)
    grid = FilteredGrid(grid, [meter.outcomes, Packed("int8", "int8"), meter])
    strategy = ist()
    messages = strategy.configure_train(1, model()[1], ConfigRecord(), grid)
    with pytest.raises(TrainingFailedError, match=r"needs a ClientApp with mods=\[packed_mod\]"):
        strategy.aggregate_train(1, grid.send_and_receive(messages))
    reasons = set(meter.traffic(1).failures.values())
    assert len(reasons) == 1
    assert "mods=[packed_mod]" in reasons.pop()
    assert meter.traffic(1).replied == set()


class Answering(InProcessGrid):
    """A grid whose answers to train messages are made by hand."""

    def __init__(self, answer) -> None:
        super().__init__(ClientApp(), 2)
        self.answer = answer

    def send_and_receive(self, messages, *, timeout=None):
        return [round_trip(reply) for m in messages for reply in self.answer(m)]


def coded_reply(message: Message, up: str, change: float = 0.25, key: str = "arrays") -> Message:
    shapes = {name: array.shape for name, array in model()[1].items()}
    tensors = {name: np.full(shape, change, np.float32) for name, shape in shapes.items()}
    packed = ArrayRecord({PACKED_KEY: pack(tensors, layout_of(tensors), up)})
    metrics = MetricRecord({"num-examples": 10})
    return Message(RecordDict({key: packed, "metrics": metrics}), reply_to=message)


def answers(answer, up: str = "int8") -> tuple[list[Message], Meter]:
    meter = Meter()
    grid = FilteredGrid(Answering(answer), [meter.outcomes, Packed("int8", up), meter])
    messages = list(FedAvg(**FEW).configure_train(1, model()[1], ConfigRecord(), grid))
    return list(grid.send_and_receive(messages)), meter


def test_a_good_reply_may_use_another_name():
    found, _ = answers(lambda message: [coded_reply(message, "int8", key="weights")])
    assert list(found[0].content.array_records) == ["weights"]
    moved = found[0].content["weights"]["fc1.bias"].numpy() - model()[0]["fc1.bias"]
    assert np.allclose(moved, 0.25)


def test_only_the_models_record_reaches_the_strategy():
    """A second ArrayRecord would end a run of Flower's FedAvg, which compares replies."""

    def answer(message: Message) -> list[Message]:
        reply = coded_reply(message, "int8")
        reply.content["more"] = ArrayRecord({"x": Array(np.ones(3, np.float32))})
        return [reply]

    for reply in answers(answer)[0]:
        assert list(reply.content.array_records) == ["arrays"]
        assert "metrics" in reply.content


def spoilt(change):
    def answer(message: Message) -> list[Message]:
        reply = coded_reply(message, "int8")
        change(reply.content)
        return [reply]

    return answer


def cut(content: RecordDict) -> None:
    array = content["arrays"][PACKED_KEY]
    content["arrays"][PACKED_KEY] = Array(array.dtype, array.shape, array.stype, array.data[:-1])


def infinite_scale(content: RecordDict) -> None:
    array = content["arrays"][PACKED_KEY]
    data = b"\x80\x7f" + array.data[2:]
    content["arrays"][PACKED_KEY] = Array(array.dtype, array.shape, array.stype, data)


def plain(content: RecordDict) -> None:
    content["arrays"] = model()[1]


def nothing(content: RecordDict) -> None:
    del content["arrays"]


def two(content: RecordDict) -> None:
    content["b"], content["c"] = content["arrays"], content["arrays"]
    del content["arrays"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (spoilt(cut), "bytes instead of 148"),
        (spoilt(infinite_scale), "'fc1.weight' holds values that are not finite numbers"),
        (spoilt(plain), r"mods=\[packed_mod\]"),
        (spoilt(nothing), "0 ArrayRecords and none is called 'arrays'"),
        (spoilt(two), "2 ArrayRecords and none is called 'arrays'"),
        (lambda m: [coded_reply(m, "int4")], "dtype is int4 instead of int8"),
        (lambda m: [coded_reply(m, "float32")], "dtype is float32 instead of int8"),
        (lambda m: [Message(Error(7, "boom"), reply_to=m)], "boom"),
    ],
)
def test_bad_replies_become_errors(answer, reason):
    found, meter = answers(answer)
    assert len(found) == 2
    for reply in found:
        assert reply.has_error()
        assert re.search(reason, reply.error.reason)
    assert meter.traffic(1).replied == set()
    assert len(meter.traffic(1).failures) == 2
    # Flower's own strategy passes over errors.
    assert FedAvg(**FEW).aggregate_train(1, found) == (None, None)


def test_a_reply_of_another_type_does_not_slip_through():
    def answer(message: Message) -> list[Message]:
        reply = coded_reply(message, "int4")
        reply.metadata.message_type = "evaluate"
        return [reply]

    for reply in answers(answer)[0]:
        assert "int4 instead of int8" in reply.error.reason


def test_a_second_answer_is_an_error_and_does_not_undo_the_first():
    found, meter = answers(lambda m: [coded_reply(m, "int8"), coded_reply(m, "int8")])
    assert [reply.has_error() for reply in found] == [False, True, False, True]
    assert "answered twice" in found[1].error.reason
    assert len(meter.traffic(1).replied) == 2


def test_what_was_sent_is_forgotten_with_its_round():
    """Nodes that come and go would leave a model behind each."""
    packed = Packed("int8", "int8")
    grid = FilteredGrid(SilentGrid(3), [packed])
    messages = list(FedAvg(**FEW).configure_train(1, model()[1], ConfigRecord(), grid))
    assert list(grid.send_and_receive(messages)) == []
    assert packed._sent == {}


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (spoilt(cut), True),
        (spoilt(plain), True),
        (lambda m: [Message(Error(7, "boom"), reply_to=m)], False),
        (lambda m: [Message(Error(2, "no flower-ist.flat.1"), reply_to=m)], False),
    ],
)
def test_a_refused_reply_is_told_from_a_client_that_failed(answer, refused):
    for reply in answers(answer)[0]:
        assert (reply.error.code == REFUSED_CODE) == refused


def test_pushed_messages_are_compressed_too():
    weights, record = model()
    grid = FilteredGrid(InProcessGrid(shifting_app(0.5), 2), [Packed("int8", "int8")])
    messages = FedAvg(**FEW).configure_train(1, record, ConfigRecord(), grid)
    replies = list(grid.pull_messages(grid.push_messages(messages)))
    assert len(replies) == 2
    for reply in replies:
        found = reply.content["arrays"]["fc1.bias"].numpy()
        assert np.allclose(found, weights["fc1.bias"] + 0.5, atol=1e-3)


any_bytes = st.binary(max_size=200) | st.binary(min_size=148, max_size=148)
any_array = st.builds(
    Array,
    st.sampled_from(["int8", "int4", "float32", "zz", "O", ""]),
    st.lists(st.integers(-1, 2**40), max_size=2).map(tuple),
    st.sampled_from(["flower-ist.flat.1", "flower-ist.flat.1", "numpy.ndarray", "x" * 500]),
    any_bytes,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(["arrays", "b"]),
        st.dictionaries(st.sampled_from([PACKED_KEY, PACKED_KEY, "fc1.weight"]), any_array),
    ),
    st.sampled_from(SMALL),
)
def test_any_reply_is_an_error_or_finite_tensors_of_the_models_shapes(records, up):
    def answer(message: Message) -> list[Message]:
        content = RecordDict({key: ArrayRecord(arrays) for key, arrays in records.items()})
        return [Message(content, reply_to=message)]

    for reply in answers(answer, up)[0]:
        if reply.has_error():
            assert len(reply.error.reason) < 400
            assert reply.error.reason.isprintable()
        else:
            (record,) = reply.content.array_records.values()
            for name, weight in model()[0].items():
                found = record[name].numpy()
                assert (found.dtype, found.shape) == (np.float32, weight.shape)
                assert np.isfinite(found).all()


# What three rounds on the blobs may lose by rounding, in points of accuracy, against float32.
LOSS = {"float16": 1.0, "int8": 2.0, "int4": 5.0}


@pytest.fixture(scope="module")
def accuracy_of(blobs):
    """Return the accuracy of runs of three rounds with the real client, each run once."""
    shard = open_shard(blobs / "test")
    dims = [shard.meta.dim, 30, 30, shard.meta.num_classes]
    train = {"local-steps": 15, "batch-size": 16, "learning-rate": 0.01, "seed": 0}

    @lru_cache
    def run(strategy: str, dtype: str) -> tuple[float, int]:
        meter = MeteredGrid(InProcessGrid(real_client, 3, {"data-dir": str(blobs)}))
        grid = FilteredGrid(meter, [Packed(dtype, dtype)])
        options = {**FEW, "min_train_nodes": 3}
        axes = mlp_axes(mlp_shapes(dims))
        chosen = ISTStrategy(axes, **options) if strategy == "ist" else FedAvg(**options)
        start = {name: Array(w) for name, w in initial_weights(dims, 0).items()}
        result = chosen.start(grid, ArrayRecord(start), 3, train_config=ConfigRecord(train))
        weights = {name: array.numpy() for name, array in result.arrays.items()}
        traffic = [meter.traffic(server_round).total for server_round in (1, 2, 3)]
        return 100 * evaluate_arrays(weights, shard)[0], sum(t.payload_bytes_up for t in traffic)

    return run


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
@pytest.mark.parametrize("dtype", SMALL)
def test_runs_learn_as_well_with_fewer_bits(accuracy_of, strategy, dtype):
    whole, whole_bytes = accuracy_of(strategy, "float32")
    small, small_bytes = accuracy_of(strategy, dtype)
    assert whole > 75
    assert small >= whole - LOSS[dtype]
    assert small_bytes < whole_bytes / {"float16": 1.99, "int8": 2.9, "int4": 3.8}[dtype]


def test_the_settings_choose_the_dtypes(blob_config):
    """Through the real apps; the share of the model that was saved still refers to float32.

    A slice of 12-10-10-3 has 250 weights in 23 rows and 23 biases: 1092 bytes in float32,
    250 + 46 + 46 in int8, 125 + 46 + 46 in int4. Whatever else is sent is the same in both runs.
    """
    lines = []
    for down, up in (("float32", "float32"), ("int8", "int4")):
        config = blob_config(num_rounds=1, wire_dtype=f"{down}:{up}")
        run_in_process(real_server, real_client, 3, config)
        lines.append(read_run(Path(config["output-dir"]))[1])
    whole, small = lines
    assert small["full_model_bytes"] == whole["full_model_bytes"]
    assert whole["payload_bytes_down"] - small["payload_bytes_down"] == 3 * (1092 - 342)
    assert whole["payload_bytes_up"] - small["payload_bytes_up"] == 3 * (1092 - 217)


def run_compact(blob_config, **options):
    """Return the lines of a run in compact, and what its clients failed with."""
    config = blob_config(wire_dtype="compact", hidden_width=16, local_steps=4, **options)
    run_in_process(real_server, real_client, 8, config)
    lines = read_run(Path(config["output-dir"]))
    assert [line["failures"] for line in lines] == [{}] * len(lines)
    return lines


@pytest.mark.parametrize("strategy", ["ist", "ist-fixed", "fedavg"])
def test_in_compact_the_first_message_holds_hardly_anything(blob_config, strategy):
    """All clients make the initial weights themselves, and later messages hold what changed."""
    lines = run_compact(blob_config, strategy=strategy, num_rounds=3, standardize=False)
    first, *later = (line["payload_bytes_down"] for line in lines[1:])
    assert all(2 * first < number for number in later)
    assert all(line["payload_bytes_up"] > 0 for line in lines[1:])


def test_a_client_that_cannot_make_the_initial_weights_gets_whole_ones(blob_config, monkeypatch):
    """It misses a round. Its own numpy is told apart by the checksum."""
    from client_app import known

    def other_numpy(text, layout, config):
        seed, dims, _ = text.split()
        return initial.start_from(f"{seed} {dims} 00000000", layout, config)

    monkeypatch.setattr(known, "start_from", other_numpy)
    config = blob_config(wire_dtype="compact", num_rounds=2, min_train_nodes=1, standardize=False)
    with pytest.raises(TrainingFailedError, match="cannot make the initial weights: numpy"):
        run_in_process(real_server, real_client, 8, config)
    packed = Packed("compact", "compact", initial=initial.InitialWeights(0, (4, 3, 2)))
    grid = FilteredGrid(InProcessGrid(shifting_app(1.0), 1), [packed])
    weights = initial_weights((4, 3, 2), 0)
    (node,) = grid.get_node_ids()
    for failed in (True, False):
        content = RecordDict({"arrays": record_of(weights), "config": ConfigRecord({"a": 1})})
        (reply,) = grid.send_and_receive([Message(content, node, "train")])
        assert reply.has_error() == failed
    assert "its ClientApp's mod has no 'known_of'" not in str(reply)
    for name, array in reply.content["arrays"].items():
        np.testing.assert_allclose(array.numpy(), weights[name] + 1, atol=0.01)


def test_a_slice_of_the_initial_weights_costs_its_neurons_and_no_more(blob_config):
    lines = run_compact(blob_config, strategy="ist", num_rounds=1, standardize=False)
    assert lines[1]["payload_bytes_down"] / 8 < 100
