"""The wire dtype compact: by hand, its error, what both ends must know, and hostile bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from flower_ist.wire import ans
from flower_ist.wire.compact import Directions, Known, decode_compact, encode_compact
from flower_ist.wire.layout import CodecError, WireError, layout_of
from flower_ist.wire.packing import pack, unpack


def there_and_back(tensors, known=None):
    known = known or Known()
    layout = layout_of(tensors)
    return decode_compact(encode_compact(tensors, layout, known), layout, known)


def test_by_hand():
    """The root mean square of (3, -1, 1, -1, 0, 0) is sqrt(2), and half of it is the step: 3 is
    4.24 steps and 1 is 1.41. The scale that brings (4, -1, 1, -1) nearest to (3, -1, 1, -1) is
    (12 + 3) / 19."""
    tensors = {"w": np.array([[3, -1, 1], [-1, 0, 0]], np.float32)}
    found = there_and_back(tensors)["w"]
    scale = 15 / 19
    expected = np.array([[4, -1, 1], [-1, 0, 0]]) * scale
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The numbers, column by column, then a scale of 4 bytes.
    raw = ans.decode(encode_compact(tensors, layout_of(tensors), Known()), 10)
    assert list(np.frombuffer(raw[:6], np.int8)) == [4, -1, -1, 0, 1, 0]
    assert np.frombuffer(raw[6:], "<f4")[0] == pytest.approx(scale)


def gaussian(rows=64, columns=48, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def test_the_error_of_gaussian_noise_is_that_of_its_step():
    """A 12th of the step's square, (1 / 2)^2 / 12 = 0.0208 of the mean square, and a little less
    because the scale is the best one: the error is 1 - 1 / (1 + 0.0208) of it."""
    noise = gaussian(400, 300)
    error = ((there_and_back({"w": noise})["w"] - noise) ** 2).mean()
    assert error == pytest.approx(1 - 1 / (1 + 0.25 / 12), rel=0.02)
    size = len(encode_compact({"w": noise}, layout_of({"w": noise}), Known()))
    # The entropy of such numbers is log2(sqrt(2 pi e) / 0.5) = 3.05 bits.
    assert 3.05 < 8 * size / noise.size < 3.3


def directions(dim, seed=1):
    """Return directions of tokens whose spread falls from 10 to 0.1, and their covariance."""
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.normal(size=(dim, dim)))[0]
    rows = np.logspace(1, -1, dim)[:, None] * basis
    return Directions.of(rows, 1e-3), rows.T @ rows


def test_directions_by_hand():
    found = Directions.of(np.array([[0.0, 3, 0]]), 0.5)
    assert found.variances.tolist() == [9, 0.5, 0.5]
    np.testing.assert_allclose(np.abs(found.basis[:, 0]), [0, 1, 0], atol=1e-7)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(3), atol=1e-6)


def test_along_directions_outputs_err_less_for_the_same_bytes():
    """Down. What is sent are 64 neurons with equal changes in all directions."""
    found, covariance = directions(48)
    tensors = {"w": gaussian()}
    layout = layout_of(tensors)

    def outcome(known):
        data = encode_compact(tensors, layout, known)
        error = (decode_compact(data, layout, known)["w"] - tensors["w"]).astype(np.float64)
        return len(data), float(np.einsum("ni,ij,nj->", error, covariance, error))

    plain_size, plain_error = outcome(Known())
    size, error = outcome(Known({}, found))
    assert size < plain_size
    assert error < 0.75 * plain_error


def test_along_directions_a_change_along_few_of_them_takes_less():
    """Up: most of the change lies along three directions."""
    found, _ = directions(48)
    strengths = np.where(np.arange(48) < 3, 5.0, 0.2).astype(np.float32)
    tensors = {"w": (gaussian() * strengths) @ found.basis.T}
    layout, known = layout_of(tensors), Known({}, found).of_reply()
    error = ((there_and_back(tensors, known)["w"] - tensors["w"]) ** 2).sum()
    assert error < 0.05 * (tensors["w"] ** 2).sum()
    plain = len(encode_compact(tensors, layout, Known()))
    assert len(encode_compact(tensors, layout, known)) < 0.3 * plain


def test_nothing_but_the_difference_from_the_start_is_sent():
    start = {"w": gaussian(), "b": gaussian(1, 64)[0], "n": np.array([3])}
    tensors = {**start, "w": start["w"] + 0}
    known = Known({"w": start["w"], "b": start["b"]})
    layout = layout_of(tensors)
    data = encode_compact(tensors, layout, known)
    assert len(data) < 60
    found = decode_compact(data, layout, known)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_directions_are_of_the_first_matrix_with_rows_of_their_length():
    found, _ = directions(48)
    known = Known({}, found)
    for tensors in (
        {"b": gaussian(1, 48)[0], "w": gaussian(8, 48)},
        {"a": gaussian(8, 40), "w": gaussian(8, 48)},
    ):
        layout = layout_of(tensors)
        same = encode_compact(tensors, layout, known) == encode_compact(tensors, layout, Known())
        assert same == ("a" in tensors)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("fi"), st.lists(st.integers(0, 4), max_size=3))))
def test_any_layout_comes_back(entries):
    generator = np.random.default_rng(0)
    tensors = {}
    for number, (kind, shape) in enumerate(entries):
        values = 10 * generator.normal(size=shape)
        tensors[str(number)] = values.astype(np.float32 if kind == "f" else np.int32)
    found = there_and_back(tensors)
    assert layout_of(found) == layout_of(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "i":
            np.testing.assert_array_equal(found[name], tensor)
        elif tensor.size:
            largest = np.abs(tensor).max()
            np.testing.assert_allclose(found[name], tensor, atol=0.3 * largest)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_come_back_as_they_were(dtype):
    tensors = {"w": np.array([[1, 2], [4, 0]], dtype), "b": np.array([1, 2], dtype)}
    assert layout_of(there_and_back(tensors)) == layout_of(tensors)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_or_too_large_is_refused(value):
    tensors = {"w": np.full((2, 2), value, np.float32)}
    with pytest.raises(CodecError, match="not finite numbers, or too large"):
        encode_compact(tensors, layout_of(tensors), Known())
    with pytest.raises(WireError, match="cannot be sent as compact"):
        pack(tensors, layout_of(tensors), "compact")


LAYOUT = {"w": (np.dtype(np.float32), (2, 3)), "b": (np.dtype(np.float32), (2,))}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_read_or_refused(data, valid):
    if valid:
        data = ans.encode(data.ljust(14, b"\1")[:14])
    try:
        found = decode_compact(data, LAYOUT, Known())
    except CodecError:
        assert not valid
    else:
        assert layout_of(found) == LAYOUT


def test_an_array_of_another_dtype_is_refused():
    tensors = {"w": gaussian(2, 3), "b": gaussian(1, 2)[0]}
    array = pack(tensors, LAYOUT, "compact")
    assert array.dtype == "compact"
    assert layout_of(unpack(array, LAYOUT, "compact")) == LAYOUT
    with pytest.raises(WireError, match="dtype is compact instead of int8"):
        unpack(array, LAYOUT, "int8")


def test_the_same_tensors_give_the_same_bytes():
    found, _ = directions(48)
    tensors = {"w": gaussian()}
    once, again = (
        encode_compact(tensors, layout_of(tensors), Known({}, found).of_reply()) for _ in range(2)
    )
    assert once == again


def test_the_number_of_threads_changes_no_bit():
    """Server and clients of one run may have different ones."""
    exact, layout = {"w": gaussian(300, 400)}, {"w": (np.dtype(np.float32), (300, 400))}
    outcomes = set()
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            known = Known({}, Directions.of(gaussian(390, 400, seed=2), 1e-3))
            data = encode_compact(exact, layout, known)
            found = decode_compact(data, layout, known)["w"]
            outcomes.add((data, found.tobytes(), known.directions.basis.tobytes()))
    assert len(outcomes) == 1
