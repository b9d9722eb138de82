"""An Array that holds its tensor is Flower's Array towards everybody else."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict

from flower_ist.blocks import largest
from flower_ist.wire.layout import WireError
from flower_ist.wire.record_tensors import decode, record_of, tensors_of
from flower_ist.wire.size import round_trip, wire_bytes
from flower_ist.wire.tensor_array import TensorArray

TENSORS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(3, dtype=np.int64),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(3, 2)),
    np.zeros((0, 4), np.float16),
    np.array([True, False]),
]


@pytest.mark.parametrize("tensor", TENSORS, ids=[str(t.dtype) for t in TENSORS])
def test_it_takes_the_bytes_that_flowers_array_takes(tensor):
    ours, flowers = TensorArray(tensor), Array(tensor)
    assert (ours.dtype, ours.shape, ours.stype) == (flowers.dtype, flowers.shape, flowers.stype)
    assert ours.data == flowers.data
    assert ours.deflate() == flowers.deflate()
    assert ours.object_id == flowers.object_id
    one, other = (
        Message(RecordDict({"arrays": ArrayRecord({"w": array})}), 5, "train")
        for array in (TensorArray(tensor), Array(tensor))
    )
    assert wire_bytes(one) == wire_bytes(other)
    found = round_trip(one).content["arrays"]["w"]
    assert type(found) is Array
    np.testing.assert_array_equal(found.numpy(), tensor)


def test_nothing_is_copied_until_the_bytes_are_asked_for():
    tensor = np.ones(4, np.float32)
    record = record_of({"w": tensor})
    (view,) = tensors_of(record).values()
    assert np.shares_memory(view, tensor)
    assert not view.flags.writeable
    assert "_data" not in vars(record["w"])
    assert not np.shares_memory(record["w"].numpy(), tensor)  # as Flower's: anybody may write it


def test_another_dtype_or_shape_is_refused():
    array = TensorArray(np.ones(4, np.float32))
    with pytest.raises(WireError, match=r"float32\[4\] instead of float32\[5\]"):
        decode(array, np.dtype(np.float32), (5,))


@pytest.mark.parametrize(
    ("values", "magnitude"),
    [([1.0, -3.0], 3.0), ([-1.0, 2.0], 2.0), ([], 0.0), ([np.inf, 1.0], np.inf)],
)
def test_the_largest_magnitude(values, magnitude):
    assert largest(np.array(values)) == magnitude


@pytest.mark.parametrize("values", [[np.nan, 1.0], [1.0, np.nan], [np.nan, -np.inf]])
def test_a_nan_is_never_hidden(values):
    assert np.isnan(largest(np.array(values)))
