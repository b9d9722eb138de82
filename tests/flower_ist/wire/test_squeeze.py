"""Lossless compression: what comes back, how short it is, and what is refused."""

from __future__ import annotations

import lzma
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_ist.wire.layout import CodecError
from flower_ist.wire.squeeze import from_planes, planes, squeeze, unsqueeze


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_come_back_in_at_most_one_more(data):
    found = squeeze(data)
    assert len(found) <= len(data) + 1
    assert unsqueeze(found, len(data)) == data


def noise(spread: float, count: int = 60_000) -> tuple[bytes, float]:
    """Return rounded Gaussian noise, and its entropy in bytes."""
    whole = np.rint(spread * np.random.default_rng(0).normal(size=count)).astype(np.int8)
    _, counts = np.unique(whole, return_counts=True)
    shares = counts / count
    return whole.tobytes(), float(-(shares * np.log2(shares)).sum() * count / 8)


@pytest.mark.parametrize(
    ("spread", "form", "above"), [(0.2, 1, 1.6), (0.6, 2, 1.25), (2.0, 2, 1.1), (12.0, 2, 1.03)]
)
def test_noise_takes_little_more_than_its_entropy(spread, form, above):
    """LZMA where most numbers are 0, a Huffman code where they are not."""
    data, entropy = noise(spread)
    found = squeeze(data)
    assert found[0] == form
    assert entropy < len(found) < above * entropy


def test_the_same_bytes_give_the_same_bytes():
    data, _ = noise(1.0)
    assert squeeze(data) == squeeze(data)


@pytest.mark.parametrize("spread", [0.2, 12.0])
@pytest.mark.parametrize("size", [59_999, 60_001])
def test_another_number_of_bytes_is_refused(spread, size):
    with pytest.raises(CodecError, match=f"does not hold {size} bytes"):
        unsqueeze(squeeze(noise(spread)[0]), size)


def test_a_bomb_is_not_unpacked():
    """A gigabyte of zeros in 1 MB: no more than the size that is due is ever made of it."""
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"\2" + zeros.compress(bytes(10**8)) + zeros.flush()
    with pytest.raises(CodecError, match="has 97"):
        unsqueeze(bomb, 1000)
    with pytest.raises(CodecError, match="does not hold 200000 bytes"):
        unsqueeze(bomb, 200_000)
    raw = lzma.compress(bytes(10**8))
    with pytest.raises(CodecError):
        unsqueeze(b"\1" + raw, 200_000)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0abcd", b"\3abc", b"\1abc", b"\2abc", b"\1", b"\2"]
)
def test_other_bytes_are_refused(data):
    with pytest.raises(CodecError) as caught:
        unsqueeze(data, 3)
    assert "\n" not in str(caught.value)


def test_bytes_behind_the_end_are_refused():
    data = bytes(1000)
    with pytest.raises(CodecError):
        unsqueeze(squeeze(data) + b"x", 1000)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_whatever_comes_is_read_or_refused(data, size):
    with suppress(CodecError):
        assert len(unsqueeze(data, size)) == size


DTYPES = st.sampled_from(["i1", "i2", "i4", "i8", "u1", "u2", "u8", "f2", "f4", "f8", "?"])


@settings(deadline=None)
@given(DTYPES.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0))))
def test_numbers_come_back_to_the_bit(numbers):
    found = from_planes(planes(numbers), numbers.dtype, numbers.shape)
    assert (found.dtype, found.shape) == (numbers.dtype, numbers.shape)
    assert found.tobytes() == numbers.tobytes()


def test_planes_by_hand():
    """0, -1, 1, -2 become 0, 1, 2, 3 and 300 becomes 600 = 2 x 256 + 88; lower bytes come first."""
    found = planes(np.array([0, -1, 1, -2, 300], np.int16))
    assert list(found) == [0, 1, 2, 3, 88, 0, 0, 0, 0, 2]
