"""Quantized tensors: bytes by hand, bounds of the error, unbiased rounding, what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_ist.wire.layout import CodecError, WireError
from flower_ist.wire.quantize import (
    WIRE_DTYPES,
    check_wire_dtype,
    decode,
    encode,
    encoded_bytes,
    noise_of,
)

LEVELS = {"int8": 127, "int4": 7}
FLOAT32 = np.dtype(np.float32)


def there_and_back(tensor: np.ndarray, wire_dtype: str, noise: np.random.Philox | None = None):
    data = encode(tensor, wire_dtype, noise)
    assert len(data) == encoded_bytes(tensor.dtype, tensor.shape, wire_dtype)
    return decode(data, tensor.dtype, tensor.shape, wire_dtype)


def largest_of_each_number(tensor: np.ndarray, wire_dtype: str) -> np.ndarray:
    """Return for each number the largest magnitude of its row or group, with plain loops."""
    rows = tensor.reshape(len(tensor), -1)
    largest = np.empty_like(rows)
    length = rows.shape[1]
    groups = 1 if wire_dtype == "int8" else -(-length // 64)
    step = -(-length // groups)
    for row in range(len(rows)):
        for start in range(0, length, step):
            part = rows[row, start : start + step]
            largest[row, start : start + step] = np.abs(part).max()
    return largest.reshape(tensor.shape)


def test_int8_by_hand():
    """Row 1 has scale 2, whose bfloat16 is 0x4000: 254 / 2 = 127. Row 2 is all zeros."""
    tensor = np.array([[254, -2, 0, 101], [0, 0, 0, 0]], np.float32)
    data = encode(tensor, "int8")
    # 101 / 2 = 50.5 is rounded to the even 50
    assert data == bytes([0x00, 0x40, 0, 0]) + bytes([127, 255, 0, 50, 0, 0, 0, 0])
    assert there_and_back(tensor, "int8").tolist() == [[254, -2, 0, 100], [0, 0, 0, 0]]


def test_int4_by_hand():
    """Scale 1 is 0x3F80; -7 is 9 in four bits; the first number is in the lower half."""
    tensor = np.array([[7, -7, 2.2]], np.float32)
    assert encode(tensor, "int4") == bytes([0x80, 0x3F]) + bytes([0x97, 0x02])
    assert there_and_back(tensor, "int4").tolist() == [[7, -7, 2]]


def test_scales_are_rounded_up():
    """The scale is 1 + 2^-10, too fine for bfloat16: the next one is 1 + 2^-7, and 127 is kept."""
    largest = np.float32(127 * (1 + 2**-10))
    data = encode(np.array([[largest, -largest]], np.float32), "int8")
    assert data == bytes([0x81, 0x3F, 126, 130])
    assert 126 * (1 + 2**-7) <= largest <= 127 * (1 + 2**-7)


def test_a_long_row_of_int4_has_groups_of_its_own_scale():
    """130 numbers are 3 groups of 44, 44 and 42: a large number spoils its own group only."""
    tensor = np.full((1, 130), 0.7, np.float32)
    tensor[0, 129] = 700.0
    found = there_and_back(tensor, "int4")
    assert np.abs(found[0, :88] - 0.7).max() < 0.01
    assert found[0, 88:129].tolist() == [0] * 41
    assert encoded_bytes(FLOAT32, (1, 130), "int4") == 3 * 2 + 65


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        # float32, float16, int8, int4
        ((10,), (40, 20, 20, 20)),
        ((), (4, 2, 2, 2)),
        ((3, 5), (60, 30, 3 * 2 + 15, 3 * 2 + 8)),
        ((2, 3, 5, 5), (600, 300, 2 * 2 + 150, 2 * 2 * 2 + 75)),
        ((256, 768), (786_432, 393_216, 512 + 196_608, 256 * 12 * 2 + 98_304)),
        ((0, 5), (0, 0, 0, 0)),
        ((5, 0), (0, 0, 0, 0)),
    ],
)
def test_bytes(shape, sizes):
    assert tuple(encoded_bytes(FLOAT32, shape, dtype) for dtype in WIRE_DTYPES) == sizes
    for dtype in WIRE_DTYPES:
        assert there_and_back(np.zeros(shape, np.float32), dtype).shape == shape


finite = st.floats(-(2.0**99), 2.0**99, width=32)
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9), elements=finite
)
long_rows = hnp.arrays(np.float32, st.tuples(st.just(1), st.integers(60, 140)), elements=finite)


@settings(max_examples=50)
@given(matrices | long_rows, st.sampled_from(["int8", "int4"]), st.none() | st.integers(0, 99))
def test_error_is_below_half_a_step_or_a_step(tensor, wire_dtype, seed):
    found = there_and_back(tensor, wire_dtype, None if seed is None else noise_of(seed))
    # A scale is rounded up by less than 2^-7; float32 itself is wrong by 2^-23 of the largest.
    largest = largest_of_each_number(tensor, wire_dtype).astype(np.float64)
    step = largest / LEVELS[wire_dtype] * (1 + 2**-7)
    bound = step * (0.5 if seed is None else 1) + largest * 2**-20 + 1e-38
    assert (np.abs(found.astype(np.float64) - tensor) <= bound).all()
    assert (found[tensor == 0] == 0).all()


@settings(max_examples=50)
@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(max_side=9), elements=st.floats(-(2.0**15), 2.0**15, width=32)
    )
)
def test_float16_is_numpys(tensor):
    assert np.array_equal(there_and_back(tensor, "float16"), tensor.astype(np.float16))


@settings(max_examples=50)
@given(
    st.sampled_from([np.int8, np.int64, np.uint16, np.bool_]).flatmap(
        lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=3))
    ),
    st.sampled_from(WIRE_DTYPES),
)
def test_whole_numbers_travel_as_they_are(tensor, wire_dtype):
    assert encode(tensor, wire_dtype) == tensor.tobytes()
    assert np.array_equal(there_and_back(tensor, wire_dtype), tensor)


@pytest.mark.parametrize("wire_dtype", ["int8", "int4"])
def test_stochastic_rounding_is_unbiased(wire_dtype):
    """The mean of 4000 draws is within 4 standard errors of x.

    The largest number of each row is L, so steps are 1 and x is rounded up with the chance of its
    fraction f: a draw's standard deviation is sqrt(f (1 - f)). The noise has 2^16 values, so a
    chance is wrong by up to 2^-17. One of 128 numbers beyond 4 errors has a chance below 1 %.
    """
    draws = 4000
    tensor = np.random.default_rng(5).normal(size=(4, 33)).astype(np.float32)
    tensor[:, 0] = LEVELS[wire_dtype]
    found = there_and_back(np.tile(tensor, (draws, 1)), wire_dtype, noise_of(7))
    error = np.abs(found.reshape(draws, 4, 33).mean(axis=0, dtype=np.float64) - tensor)
    fraction = tensor - np.floor(tensor)
    standard = np.sqrt(fraction * (1 - fraction) / draws)
    assert (error <= 4 * standard + 2**-17 + 1 / draws).all()
    assert 0.2 < np.abs(there_and_back(tensor, wire_dtype) - tensor)[:, 1:].mean() < 0.3
    assert error.mean() < 0.02


def test_noise_follows_its_seeds():
    tensor = np.random.default_rng(5).normal(size=(4, 33)).astype(np.float32)
    assert encode(tensor, "int4", noise_of(1, 2)) == encode(tensor, "int4", noise_of(1, 2))
    assert encode(tensor, "int4", noise_of(1, 2)) != encode(tensor, "int4", noise_of(2, 1))


@pytest.mark.parametrize("wire_dtype", ["float16", "int8", "int4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_what_is_no_number_is_refused(wire_dtype, value, shape):
    tensor = np.ones(shape, np.float32)
    tensor[..., 1] = value
    with pytest.raises(CodecError, match="numbers"):
        encode(tensor, wire_dtype)


def test_float16_refuses_what_it_cannot_hold():
    with pytest.raises(CodecError, match="65504"):
        encode(np.array([70_000], np.float32), "float16")


def test_tiny_and_huge_numbers():
    tensor = np.array([[1e-45, 0], [3e-39, -3e-39], [3e38, -3e38]], np.float32)
    found = there_and_back(tensor, "int8")
    assert np.allclose(found[:2], tensor[:2], atol=1e-40)
    assert np.allclose(found[2], tensor[2], rtol=0.01)


def test_other_float_dtypes_come_back_as_they_were():
    for dtype in (np.float16, np.float64):
        tensor = np.array([[1, 2, 127]], dtype)
        for wire_dtype in WIRE_DTYPES:
            assert there_and_back(tensor, wire_dtype).dtype == dtype
        assert there_and_back(tensor, "int8").tolist() == tensor.tolist()


@pytest.mark.parametrize("wire_dtype", WIRE_DTYPES)
@pytest.mark.parametrize("change", [-1, 1])
def test_bytes_of_another_number_are_refused(wire_dtype, change):
    data = encode(np.ones((3, 5), np.float32), wire_dtype)
    data = data[:-1] if change < 0 else data + b"\0"
    with pytest.raises(CodecError, match=f"has {len(data)} bytes instead of {len(data) - change}"):
        decode(data, FLOAT32, (3, 5), wire_dtype)


@settings(max_examples=50)
@given(st.sampled_from(["float16", "int8", "int4"]), st.data())
def test_any_bytes_of_the_right_number_are_read(wire_dtype, data):
    """Infinite scales, -128, -8, halves behind the end: the reader judges values, not this."""
    size = encoded_bytes(FLOAT32, (3, 5), wire_dtype)
    found = decode(data.draw(st.binary(min_size=size, max_size=size)), FLOAT32, (3, 5), wire_dtype)
    assert (found.dtype, found.shape) == (FLOAT32, (3, 5))


def test_unknown_wire_dtypes():
    with pytest.raises(WireError, match="no wire dtype 'int2': choose one of float32"):
        check_wire_dtype("int2")
