"""Any bytes as a layout, a packed or a plain array: the documented error or an answer, little
memory. Minutes of the same outside CI: benchmarks/fuzz_unpack.py.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_ist.wire.layout import WireError, layout_from_text
from flower_ist.wire.packing import unpack
from flower_ist.wire.protocol import PACKED_STYPE
from flower_ist.wire.record_tensors import decode

LAYOUT = {"w": (np.dtype(np.float32), (2, 3)), "b": (np.dtype(np.float32), (2,))}
# The inputs have at most 10 kB.
_MOST_BYTES = 5_000_000

numbers = st.integers(-3, 9) | st.sampled_from([2**31, 2**63, 10**20, 10**400])
entries = st.tuples(
    st.text(max_size=3),
    st.sampled_from(["<f4", "f8", "f4,f4", "(9,)f4", "O", "V9", "M8", "|S9999", "?", "", None, {}]),
    st.lists(numbers, max_size=3) | st.just([1] * 70) | st.none() | st.text(max_size=3),
)
layouts = (
    st.text(max_size=100)
    | st.sampled_from(["[" * 9999, '{"a":' * 1999, "1" * 9999, "-" * 9999, "NaN", "[[[]]]"])
    | st.lists(entries, max_size=3).map(lambda found: repr(found).replace("'", '"'))
)
headers = st.binary(max_size=80) | st.sampled_from(
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
        b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2000000000000,), }",
        b"{'descr': 'O', 'fortran_order': False, 'shape': (2, 3), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9" + b"**9" * 9 + b",)}",
        b"(" * 5000,
        b"-" * 9000 + b"1",
        b"[" * 9000,
    ]
)


def little_memory(read: Callable[[], object]) -> None:
    """Read something, refused or not, and see what it took."""
    tracemalloc.start()
    try:
        read()
    except WireError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < _MOST_BYTES


@settings(deadline=None, max_examples=60)
@given(layouts, st.binary(max_size=64))
def test_any_text_as_a_layout(text, data):
    def read() -> None:
        layout = layout_from_text(text)
        dtypes = {str(dtype) for dtype, _ in layout.values()}
        flat = dtypes.pop() if len(dtypes) == 1 else "mixed"
        unpack(Array(flat, (len(data),), PACKED_STYPE, data), layout)

    little_memory(read)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '[["a","<f4",[' + ",".join(["1"] * 70) + "]]]",
        '[["a","<f4",[0,99999999999999999999]]]',
        '[["a","<f4",[9999999999,9999999999]]]',
    ],
)
def test_layouts_that_no_array_can_have(text):
    with pytest.raises(WireError, match="packed layout"):
        layout_from_text(text)


@settings(deadline=None, max_examples=60)
@given(
    dtype=st.sampled_from(["float32", "int8", "mixed", "O", ""]),
    shape=st.lists(st.integers(-(2**40), 2**40), max_size=4).map(tuple),
    data=st.binary(max_size=64),
    wire_dtype=st.sampled_from(["float32", "float16", "int8", "int4"]),
)
def test_any_bytes_as_a_packed_array(dtype, shape, data, wire_dtype):
    array = Array(dtype, shape, PACKED_STYPE, data)
    little_memory(lambda: unpack(array, LAYOUT, wire_dtype))


@settings(deadline=None, max_examples=60)
@given(headers, st.binary(max_size=32), st.sampled_from([1, 2, 3, 9]))
def test_any_bytes_as_a_plain_array(header, data, version):
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    content = b"\x93NUMPY" + bytes([version, 0]) + length + header + data
    array = Array("float32", (2, 3), "numpy.ndarray", content)
    little_memory(lambda: decode(array, *LAYOUT["w"]))
