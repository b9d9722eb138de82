"""Tensors that pass through the chain in blocks come out as if they had been handled whole."""

import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flower_ist import blocks
from flower_ist.blocks import Blocked, blocks_of, joined, rooms, runs
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut, Returned
from flower_ist.submodels.merging import Merger, merge, room_for
from flower_ist.submodels.partition import partition
from flower_ist.wire.quantize import at_most, decode, decode_blocks, encode, noise_of

DTYPES = ["float32", "float16", "int8", "int4"]
AXES = mlp_axes({"fc1.weight": (24, 7), "fc1.bias": (24,), "fc2.weight": (5, 24), "fc2.bias": (5,)})


@pytest.fixture
def small(monkeypatch):
    """Let a block have four rows, or a few more."""
    monkeypatch.setattr(blocks, "_VALUES", 40)


def model(seed):
    random = np.random.default_rng(seed)
    return {n: random.standard_normal(s).astype(np.float32) for n, s in AXES.shapes.items()}


def cuts(count):
    return [Cut(AXES, part) for part in partition(0, 1, AXES.widths, count)]


def test_runs_cover_all_rows_in_multiples_of_four(small):
    assert list(runs((10, 7))) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert list(runs((25,))) == [slice(0, 25)]
    assert list(runs((0, 3))) == []
    assert list(runs(())) == [...]


def test_rooms_are_one_memory(small):
    found = list(rooms((10, 7), np.int8))
    assert [room.shape for _, room in found] == [(4, 7), (4, 7), (2, 7)]
    assert all(np.shares_memory(found[0][1], room) for _, room in found)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 9), min_size=0, max_size=3),
    st.sampled_from(DTYPES),
    st.none() | st.integers(0, 9),
)
def test_bytes_and_tensors_are_the_same_in_blocks(monkeypatch, shape, wire_dtype, seed):
    """Whatever the shape, the wire dtype and the noise."""
    tensor = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    found = []
    for values in (1 << 17, 5):
        monkeypatch.setattr(blocks, "_VALUES", values)
        data = encode(tensor, wire_dtype, None if seed is None else noise_of(seed))
        found.append((data, decode(data, tensor.dtype, tensor.shape, wire_dtype).tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("wire_dtype", ["int8", "int4"])
def test_no_number_exceeds_what_the_scales_tell(wire_dtype):
    tensor = np.random.default_rng(0).standard_normal((6, 70)).astype(np.float32)
    data = encode(tensor, wire_dtype)
    bound = at_most(data, tensor.dtype, tensor.shape, wire_dtype)
    largest = np.abs(decode(data, tensor.dtype, tensor.shape, wire_dtype)).max()
    assert largest <= bound <= 1.2 * largest


def test_a_bound_of_scales_that_are_no_numbers_is_none():
    data = bytearray(encode(np.ones((2, 3), np.float32), "int8"))
    data[2:4] = np.array([0x7FC0], "<u2").tobytes()  # the second row's scale: NaN
    assert np.isnan(at_most(bytes(data), np.dtype("f4"), (2, 3), "int8"))
    assert at_most(bytes(6), np.dtype("f2"), (3,), "int8") == np.inf


def test_a_sum_is_bounded_and_measured(small):
    one, other = model(0)["fc1.weight"], model(1)["fc1.weight"]
    total = Blocked(lambda: blocks_of(one), 5.0).plus(Blocked(lambda: blocks_of(other), 6.0))
    assert np.array_equal(joined(total.make(), one.dtype, one.shape), one + other)
    assert 11 < total.at_most < 11.1
    assert total.measured().at_most == np.abs(one + other).max()
    assert np.isnan(Blocked(lambda: blocks_of(np.array([1, np.nan, 2]))).measured().at_most)


def test_slices_are_cut_and_merged_the_same_in_blocks(monkeypatch):
    found = []
    for values in (1 << 17, 5):
        monkeypatch.setattr(blocks, "_VALUES", values)
        whole, trained = model(0), model(1)
        taken = [cut.take(whole) for cut in cuts(3)]
        replies = [Returned(cut, cut.take(trained), 1.0) for cut in cuts(3)]
        merge(whole, replies)
        found.append((taken, whole))
    assert all(
        np.array_equal(a[name], b[name])
        for a, b in zip(found[0][0], found[1][0], strict=True)
        for name in a
    )
    assert all(np.array_equal(found[0][1][name], found[1][1][name]) for name in AXES.shapes)


@pytest.mark.parametrize("silent", [[], [1], [0, 1, 2]])
def test_what_nobody_brings_is_kept_in_new_memory(small, silent):
    """The memory to merge into holds anything: each entry is written once or copied."""
    old, trained = model(0), model(1)
    new = {name: np.full_like(tensor, np.nan) for name, tensor in old.items()}
    merger = Merger(old, new, cuts(3))
    replies = [Returned(cut, cut.take(trained), 1.0) for cut in cuts(3)]
    merger = Merger(old, new, [reply.cut for reply in replies])
    for index, reply in enumerate(replies):
        if index not in silent:
            merger.add(reply)
    merger.finish()
    expected = {name: tensor.copy() for name, tensor in old.items()}
    merge(expected, [reply for index, reply in enumerate(replies) if index not in silent])
    assert all(np.array_equal(new[name], expected[name]) for name in new)
    assert all(np.array_equal(old[name], model(0)[name]) for name in old)


def test_a_change_is_added_on_the_models_scale(small):
    """H / n = 24 / 8: a change of 3 in a slice's incoming weight of the second layer is 1 here."""
    old = model(0)
    new, (cut, *_) = room_for(old, {}), cuts(3)
    change = np.full((5, 8), 3, np.float32)
    data = encode(change, "int8")
    blocked = Blocked(lambda: decode_blocks(data, change.dtype, change.shape, "int8"))
    same = cut.take(old)
    merger = Merger(old, new, [cut])
    merger.add(Returned(cut, same, 1.0, {"fc2.weight": blocked}))
    merger.finish()
    step = decode(data, change.dtype, change.shape, "int8")[0, 0] / np.float32(3)
    held = cut.indices["h1"]
    assert np.array_equal(new["fc2.weight"][:, held], old["fc2.weight"][:, held] + step)
    others = np.setdiff1d(np.arange(24), held)
    assert np.array_equal(new["fc2.weight"][:, others], old["fc2.weight"][:, others])
    assert abs(step - 1) < 0.01


def test_a_merged_reply_is_let_go_though_its_biases_wait():
    """The last layer's bias is in all slices, and waits for the other replies alone."""

    class Tensors(dict[str, np.ndarray]):
        """As it came over the network."""

    old, (first, second) = model(0), cuts(2)
    merger = Merger(old, room_for(old, {}), [first, second])
    tensors = Tensors(first.take(model(1)))
    alive = weakref.ref(tensors)
    merger.add(Returned(first, tensors, 1.0))
    del tensors
    assert alive() is None
