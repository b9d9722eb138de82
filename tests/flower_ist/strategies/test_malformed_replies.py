"""Ten thousand malformed replies: none may stop the server or spoil the model."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flower_ist.grids.metered import MeteredGrid
from flower_ist.runs.recorder import RoundRecorder
from flower_ist.wire.layout import layout_of
from flower_ist.wire.packing import pack
from flower_ist.wire.protocol import PACKED_KEY, REFUSED_CODE
from flower_ist.wire.size import round_trip
from tests.fakes.strategies import SilentGrid, arrays_of, configured, merged, reply

NAMES = [
    "float32",
    "float64",
    "float16",
    "int64",
    "int8",
    "bool",
    "O",
    "zz",
    "(2,3",
    "2147483647f4",
    "f4,f4",
]
ANY_DTYPE = st.text(max_size=6) | st.sampled_from(NAMES)
ANY_SHAPE = st.lists(st.integers(-2, 9), max_size=3).map(tuple)
ANY_NUMBER = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.lists(st.floats(), max_size=3)
)


@st.composite
def any_array(draw):
    """An Array that lies about itself, or one that is only of the wrong dtype, shape or value."""
    if draw(st.booleans()):
        data = draw(st.binary(max_size=200))
        stype = draw(st.sampled_from(["numpy.ndarray", "flower-ist.flat.1", "pickle", ""]))
        return Array(draw(ANY_DTYPE), draw(ANY_SHAPE), stype, data)
    shape = draw(st.lists(st.integers(0, 8), max_size=3))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.float16, np.int32]))
    value = draw(st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf, 1e38]))
    with np.errstate(all="ignore"):
        array = Array(np.full(shape, value).astype(dtype))
    if draw(st.booleans()):
        array.data = array.data[: draw(st.integers(0, len(array.data)))]
    if draw(st.booleans()):
        array.shape = draw(ANY_SHAPE)
    return array


@st.composite
def any_reply(draw, message):
    """A reply in which anything may be wrong, from an error to a single NaN in a good slice."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        code = draw(st.integers(0, 9) | st.just(REFUSED_CODE))
        return Message(Error(code, draw(st.text(max_size=50))), reply_to=message)
    content = RecordDict()
    good = arrays_of(message)
    arrays = {name: Array(np.ascontiguousarray(tensor)) for name, tensor in good.items()}
    if draw(st.booleans()):
        arrays = {PACKED_KEY: pack(good, layout_of(good))}
    if kind < 3:
        arrays = draw(st.dictionaries(st.sampled_from([*good, PACKED_KEY, "x"]), any_array()))
    elif kind < 6:
        arrays[draw(st.sampled_from(list(good)))] = draw(any_array())
    elif kind < 8:
        name = draw(st.sampled_from(list(good)))
        tensor = good[name].copy()
        tensor.reshape(-1)[draw(st.integers(0, tensor.size - 1))] = draw(
            st.sampled_from([np.nan, np.inf, -np.inf])
        )
        arrays[name] = Array(tensor)
    for name in draw(st.sampled_from([["arrays"], ["arrays"], [], ["other"], ["arrays", "b"]])):
        content[name] = ArrayRecord(arrays)
    if draw(st.integers(0, 4)):
        key = draw(st.sampled_from(["num-examples", "num-examples", "n"]))
        content["metrics"] = MetricRecord({key: draw(ANY_NUMBER), "loss": draw(ANY_NUMBER)})
    if draw(st.booleans()):
        content["config"] = ConfigRecord({"packed-layout": draw(st.text(max_size=9)), "b": b"\0"})
    return Message(content, reply_to=message)


class AnsweringGrid(SilentGrid):
    """A grid that has its answers ready."""

    def __init__(self, answers: list[Message]) -> None:
        super().__init__(0)
        self.answers = answers

    def send_and_receive(self, messages, *, timeout=None):
        list(messages)
        return self.answers


@pytest.fixture(scope="module", autouse=True)
def _no_log_of_ten_thousand_refusals():
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@settings(
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_ten_at_a_time_crash_nothing_and_spoil_nothing(data):
    """1,000 rounds of ten bad replies and a good one that brings its slice back unchanged.

    They take the whole way: Flower's serialization, the meter, the strategy and the recorder.
    """
    strategy, weights, messages = configured(num_nodes=11, num_slices=6)
    good, *bad = messages
    replies = [data.draw(any_reply(message)) for message in bad]
    grid = AnsweringGrid([round_trip(r) for r in [*replies, reply(good, arrays_of(good))]])
    meter, lines = MeteredGrid(grid), []
    recorder = RoundRecorder(meter, lines, strategy, lambda *_: None, {})  # type: ignore[arg-type]
    found = merged(strategy, list(meter.send_and_receive(messages)))
    recorder(1, ArrayRecord({name: Array(tensor) for name, tensor in found.items()}))

    for name, tensor in found.items():
        assert (tensor.dtype, tensor.shape) == (np.float32, weights[name].shape)
        assert np.isfinite(tensor).all()
        assert np.abs(tensor).max() <= 1e4
    if len(strategy.last_round.refused) == len(bad):
        for name, tensor in found.items():
            assert tensor.tobytes() == weights[name].tobytes()
    (line,) = lines
    assert line["clients_replied"] + line["clients_failed"] == 11
    assert len(json.dumps(line)) < 10_000
