"""The entropy coder: by hand, its length, its distributions, and hostile bytes."""

from __future__ import annotations

import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_ist.wire.ans import _gaussians, decode, encode
from flower_ist.wire.layout import CodecError


def test_by_hand():
    """In 127, -128, -128 all bytes are alike, at 16 of 4096, as two of them are beyond a Gaussian's
    reach. One state codes them; it begins with the last two, which as bytes are 0. 127 is the 256th
    number, with F = 255 x 16 = 4080: from 65536 the state moves to 4096 (65536 // 16) + 4080."""
    data = bytes([127, 128, 128])
    found = encode(data)
    assert found[0] == 3
    assert zlib.decompress(found[1:-4], -15) == b"\x0f"
    assert int.from_bytes(found[-4:], "little") == 4096 * 4096 + 4080
    assert decode(found, 3) == data


def test_a_state_that_is_full_gives_its_lower_half():
    """One state codes four numbers of 16 of 4096, 8 bits each, and begins at 2^16. With 16 of 4096
    a state is full at 2^24, so that every second number takes 16 bits out of it."""
    data = bytes([127, 128, 127, 128, 128, 128])
    found = encode(data)
    assert zlib.decompress(found[1:-8], -15) == b"\x0f"
    # -128 moves it from 2^16 to 2^24. That gives 0, and 127 moves what is left, 2^8, to
    # 4096 (2^8 // 16) + 4080 = 69616; -128 to 4096 (69616 // 16) = 4351 x 4096. That gives its
    # lower half, and 127 moves the upper one, 271 = 16 x 16 + 15, to 4096 x 16 + 4080 + 15.
    words = (4351 * 4096 % 65536).to_bytes(2, "little") + b"\0\0"
    assert found[-8:] == (4096 * 16 + 4080 + 15).to_bytes(4, "little") + words
    assert decode(found, 6) == data


def test_zeros_take_nothing():
    assert len(encode(bytes(100_000))) < 20
    assert decode(encode(bytes(100_000)), 100_000) == bytes(100_000)


@settings(deadline=None)
@given(st.binary(max_size=700), st.integers(0, 255))
def test_any_bytes_come_back(data, most):
    """Large numbers or small ones, in blocks of which some are all 0."""
    data = bytes(min(byte, most) for byte in data)
    assert decode(encode(data), len(data)) == data


def noise(spread: float, count: int = 100_000) -> tuple[bytes, float]:
    """Return rounded Gaussian noise, and its entropy in bytes."""
    whole = np.rint(spread * np.random.default_rng(0).normal(size=count)).astype(np.int8)
    _, counts = np.unique(whole, return_counts=True)
    shares = counts / count
    return whole.tobytes(), float(-(shares * np.log2(shares)).sum() * count / 8)


@pytest.mark.parametrize("spread", [0.2, 0.35, 0.6, 2.0, 12.0])
def test_noise_takes_little_more_than_its_entropy(spread):
    """A byte for each of 237 states, a byte for two blocks, and at most 0.06 bits a number: a
    deviation between those of two distributions, and a 4096th for each number that is rare."""
    data, entropy = noise(spread)
    above = len(encode(data)) - entropy
    assert 0 < above < 237 + 100_000 / 256 + 0.06 * 100_000 / 8


def test_what_cannot_be_compressed_grows_by_little():
    """3/4 of 316 states of 4 bytes, which hold 2 each, and the blocks' names."""
    data = np.random.default_rng(0).bytes(100_000)
    assert 100_000 < len(encode(data)) < 100_000 + 2 * 237 + 60


def test_distributions_are_nearly_those_of_gaussians():
    """Coded in f / 4096, numbers of such a Gaussian take at most 0.03 bits above their entropy."""
    i = np.arange(-128, 128)
    for number, row in enumerate(_gaussians()):
        assert sum(row) == 4096
        exact = np.exp(-(i**2) / 2 ** (number - 2))
        kept = (np.array(row) > 0) & (exact > 0)
        shares = exact[kept] / exact[kept].sum()
        assert (shares * np.log2(4096 * shares / np.array(row)[kept])).sum() < 0.03
    # exp(-4) = 0.0183 of a 0's weight, which is then 1 / 1.0366 of all: 3951, and 72 each.
    assert _gaussians()[0][126:131] == [1, 72, 3950, 72, 1]


@pytest.mark.parametrize("size", [59_999, 60_001, 59_000, 0])
def test_another_number_of_bytes_is_refused(size):
    with pytest.raises(CodecError):
        decode(encode(noise(1.0, 60_000)[0]), size)


def test_a_bomb_is_not_unpacked():
    """A gigabyte of blocks in 1 MB: no more than are due are ever made of it."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"\3" + deflate.compress(b"\1" * 10**8) + deflate.flush()
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="does not hold 200000 bytes"):
            decode(bomb, 200_000)
        assert tracemalloc.get_traced_memory()[1] < 2 * 10**6
    finally:
        tracemalloc.stop()


def test_decoding_takes_memory_by_what_is_due():
    data, _ = noise(0.5, 200_000)
    found = encode(data)
    tracemalloc.start()
    try:
        decode(found, len(data))
        assert tracemalloc.get_traced_memory()[1] < 16 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"\3", b"\3abc", b"\2abc", b"\0abcd", b"\3\3\0", b"\3\xff"])
def test_other_bytes_are_refused(data):
    with pytest.raises(CodecError) as caught:
        decode(data, 3)
    assert "\n" not in str(caught.value)


def test_bytes_of_an_earlier_version_are_refused_with_a_reason():
    with pytest.raises(CodecError, match="another version of flower-ist"):
        decode(b"\1" + bytes(90), 90)


@pytest.mark.parametrize("where", ["end", "cut", "state", "word", "name"])
def test_what_was_changed_is_refused(where):
    data, _ = noise(1.0, 5000)
    found = bytearray(encode(data))
    if where == "end":
        found += b"xx"
    elif where == "cut":
        del found[-2:]
    elif where == "state":
        found[20] ^= 0x40
    elif where == "word":
        found[-500] ^= 0x40
    else:
        found[2] ^= 0x40
    with pytest.raises(CodecError):
        decode(bytes(found), 5000)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=200), st.integers(0, 700))
def test_whatever_comes_is_read_or_refused(blocks, rest, size):
    """Also where the blocks' names are valid ones, so that states are read."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    named = bytes(block % 17 for block in blocks)[: -(-size // 128)].ljust(-(-size // 128), b"\4")
    for data in (b"\3" + blocks + rest, b"\3" + deflate.compress(named) + deflate.flush() + rest):
        with suppress(CodecError):
            assert len(decode(data, size)) == size
