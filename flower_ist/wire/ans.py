"""An entropy coder for small whole numbers: asymmetric numeral systems, in numpy.

The numbers, one a byte, are coded in blocks of 128. Each block names one of 16 fixed distributions:
only 0, one of 14 Gaussians of standard deviations from 0.35 to 32, in steps of the root of 2, or
all bytes alike. A number of probability f / 4096 moves a state x, of 32 bits, to

    x' = 4096 (x // f) + F + x % f        F the sum of the f of the numbers before it

and a state that would grow beyond 32 bits gives its lower 16 to the output first: about
log2(4096 / f) bits a number (Duda 2013, https://arxiv.org/abs/1311.2540). numpy does that for many
states at a time, which take turns with the numbers (Giesen 2014, https://arxiv.org/abs/1402.3392).
Each state costs about a byte, and each turn time, so of n numbers there are 3/4 of sqrt(n) states.
A state begins with two bytes of the data's end, so what cannot be compressed belongs there.

Coding is exact in whole numbers, the same on any machine. On the wire: a form byte, the blocks'
distributions, deflated; the states; what they gave.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flower_ist.wire.layout import CodecError

# After those of flower_ist.wire.squeeze, which came first.
_FORM = 3
_BLOCK = 128
# Blocks are looked at so many at a time, whose counts stay in the cache.
_CACHED = 128
_BITS = 12
_TOTAL = 1 << _BITS
_GAUSSIANS = 14
_ALIKE = _GAUSSIANS + 1  # the last distribution; 0 is the first
# exp(-1 / (2 s^2)) of the narrowest, s^2 = 1/8; that of twice the variance is the root of it.
_NARROWEST = 0.01831563888873418
_ONE = 1 << 60
_LEAST_STATE = 1 << 16
# In a block's cost, 1/32 of a bit is 1, so that sums are exact in float32.
_IMPOSSIBLE = 1 << 16


class _Tables(NamedTuple):
    """By distribution and number + 128, or by distribution and a state's lower 12 bits."""

    frequency: NDArray[np.uint32]  # (16 * 256,) f
    before: NDArray[np.uint32]  # (16 * 256,) F
    cost: NDArray[np.float32]  # (256, 16)
    number: NDArray[np.uint8]  # (16 * 4096,)
    factor: NDArray[np.uint32]  # (16 * 4096,) f of that number
    rest: NDArray[np.uint32]  # (16 * 4096,) the lower bits less F


def encode(data: bytes) -> bytes:
    """Return bytes, taken as numbers from -128 to 127, in fewer bytes if most are near 0."""
    tables = _tables()
    numbers = np.frombuffer(data, np.uint8) ^ np.uint8(128)
    chosen = _distributions(numbers, tables)
    coded, of = _coded(numbers, chosen)
    lanes = _lanes(len(coded))
    stop = max(0, len(coded) - 2 * lanes)
    raw = np.zeros(2 * lanes, np.uint8)
    raw[: len(coded) - stop] = coded[stop:]
    states = raw.view("<u2").astype(np.uint32) + np.uint32(_LEAST_STATE)
    index = of[:stop] * 256 + coded[:stop]
    frequency, before = tables.frequency[index], tables.before[index]
    given = np.empty(stop, "<u2")
    free = stop
    for first in range((stop - 1) // max(1, lanes) * lanes, -1, -lanes) if stop else ():
        f = frequency[first : first + lanes]
        x = states[: len(f)]
        full = (x >> np.uint32(32 - _BITS)) >= f
        low = x[full]
        free -= len(low)
        given[free : free + len(low)] = low  # the lower half
        x[full] = low >> np.uint32(16)
        quotient = x // f
        x += quotient * (np.uint32(_TOTAL) - f)
        x += before[first : first + lanes]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    blocks = deflate.compress(chosen.tobytes()) + deflate.flush()
    return bytes([_FORM]) + blocks + states.astype("<u4").tobytes() + given[free:].tobytes()


def decode(data: bytes | memoryview, size: int) -> bytes:
    """Return the bytes that :func:`encode` was given. About 15 times as much is allocated.

    Args:
        data: from the network.
        size: how many bytes they must be.

    Raises:
        CodecError: they are other bytes, or more or fewer.
    """
    if not len(data) or data[0] != _FORM:
        raise CodecError("was coded by another version of flower-ist")
    blocks = -(-size // _BLOCK)
    reader = zlib.decompressobj(-15)
    try:
        chosen = np.frombuffer(reader.decompress(data[1:], blocks + 1), np.uint8)
    except zlib.error as err:
        raise CodecError("cannot be decompressed") from err
    left = reader.unused_data
    if not reader.eof or len(chosen) != blocks or chosen.max(initial=0) > _ALIKE:
        raise CodecError(f"does not hold {size} bytes")
    numbers = np.full(size, 128, np.uint8)
    coded, of = _coded(numbers, chosen)
    lanes = _lanes(len(coded))
    if len(left) < 4 * lanes or len(left) % 2:
        raise CodecError(f"does not hold {size} bytes")
    states = np.frombuffer(left, "<u4", lanes).astype(np.uint32)
    given = np.frombuffer(left, "<u2", offset=4 * lanes).astype(np.uint32)
    stop = max(0, len(coded) - 2 * lanes)
    place, used = _numbers(states, given, of[:stop] * _TOTAL)
    if used != len(given) or ((states >> np.uint32(16)) != 1).any():
        raise CodecError(f"does not hold {size} bytes")
    coded[:stop] = _tables().number[place]
    coded[stop:] = states.astype("<u2").view(np.uint8)[: len(coded) - stop]
    if len(coded) < size:
        numbers[np.repeat(chosen != 0, _BLOCK)[:size]] = coded
    return (numbers ^ np.uint8(128)).tobytes()


def _numbers(
    states: NDArray[np.uint32], given: NDArray[np.uint32], place: NDArray[np.uint32]
) -> tuple[NDArray[np.uint32], int]:
    """Move states back over all numbers; return the numbers' places in tables, and words read.

    Whatever the states are, every place is in the tables.
    """
    tables, lanes, used = _tables(), len(states), 0
    lower = np.uint32(_TOTAL - 1)
    for first in range(0, len(place), max(1, lanes)):
        here = place[first : first + lanes]
        x = states[: len(here)]
        here += x & lower
        x >>= np.uint32(_BITS)
        x *= tables.factor.take(here)
        x += tables.rest.take(here)
        empty = x < np.uint32(_LEAST_STATE)
        count = int(np.count_nonzero(empty))
        if used + count > len(given):
            raise CodecError("is cut off")
        x[empty] = (x[empty] << np.uint32(16)) | given[used : used + count]
        used += count
    return place, used


def _lanes(count: int) -> int:
    """Return how many states code so many numbers."""
    return max(min(1, count), 3 * math.isqrt(count) // 4)


def _coded(
    numbers: NDArray[np.uint8], chosen: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Return the numbers (m,) of blocks that are not all 0, and each one's distribution (m,)."""
    of = np.repeat(chosen, _BLOCK)[: len(numbers)]
    if not chosen.all():
        numbers, of = numbers[of > 0], of[of > 0]
    return numbers, of.astype(np.uint32)


def _distributions(numbers: NDArray[np.uint8], tables: _Tables) -> NDArray[np.uint8]:
    """Return the distribution in which each block takes the fewest bits."""
    chosen = []
    for first in range(0, len(numbers), _CACHED * _BLOCK):
        here = numbers[first : first + _CACHED * _BLOCK]
        blocks = -(-len(here) // _BLOCK)
        index = np.repeat(np.arange(0, blocks * 256, 256), _BLOCK)[: len(here)] + here
        counts = np.bincount(index, minlength=blocks * 256).reshape(blocks, 256)
        chosen.append((counts.astype(np.float32) @ tables.cost).argmin(axis=1))
    return np.concatenate(chosen or [[]]).astype(np.uint8)


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    frequency = np.array([_only_zero(), *_gaussians(), [_TOTAL // 256] * 256], np.uint32)
    before = frequency.cumsum(axis=1, dtype=np.uint32) - frequency
    rare = np.log2(_TOTAL / np.maximum(frequency, 1))
    cost = np.where(frequency > 0, np.rint(32 * rare), _IMPOSSIBLE).astype(np.float32)
    number = np.array([np.repeat(np.arange(256), row) for row in frequency])
    factor = np.take_along_axis(frequency, number, axis=1)
    rest = np.arange(_TOTAL, dtype=np.uint32) - np.take_along_axis(before, number, axis=1)
    return _Tables(
        frequency.reshape(-1),
        before.reshape(-1),
        np.ascontiguousarray(cost.T),
        number.astype(np.uint8).reshape(-1),
        factor.reshape(-1),
        rest.reshape(-1),
    )


def _only_zero() -> list[int]:
    return [0] * 128 + [_TOTAL] + [0] * 127


def _gaussians() -> list[list[int]]:
    """Return f of the numbers -128 to 127 in each; f is 0 beyond about five deviations."""
    found, ratio = [], int(_NARROWEST * _ONE)
    for _ in range(_GAUSSIANS):
        # r^(i^2) for i = 0, 1 ..., r = ratio / 2^60: exact whole numbers, alike anywhere.
        weights, step = [_ONE], ratio
        while len(weights) < 128 and weights[-1] > _ONE >> 18:
            weights.append(weights[-1] * step // _ONE)
            step = step * ratio // _ONE * ratio // _ONE
        total = 2 * sum(weights) - weights[0]
        side = [max(1, weight * _TOTAL // total) for weight in weights[1:]]
        side += [0] * (127 - len(side))
        found.append([0, *reversed(side), _TOTAL - 2 * sum(side), *side])
        ratio = math.isqrt(ratio * _ONE)
    return found
