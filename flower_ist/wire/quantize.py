"""Encode tensors for the wire in 16, 8 or 4 bits per number, and decode them. Pure numpy.

In ``int8`` and ``int4`` a row of numbers x is sent as small integers q and one scale s:

    s = max|x| / L        q = round(x / s), -L to L        x is decoded as q s

with L = 127 or 7. A row holds what one neuron of the next layer reads: a tensor's entries at one
index of its first axis. In int4 a row is divided into groups of at most 64 numbers, each with its
own scale, so that one large number costs precision only in its own group.

Rounding is to the nearest, with an error of at most s / 2; or, with noise, up or down at random so
that the mean of the decoded value is x (QSGD, Alistarh et al. 2017,
https://arxiv.org/abs/1610.02132, section 3.1, with the largest magnitude in place of the norm),
with an error below s. The second is for changes of weights: over rounds and clients unbiased errors
cancel, while rounding to the nearest would permanently lose each change below s / 2.

A scale takes two bytes: the upper half of its float32 (bfloat16), rounded up so that no q exceeds
L. That makes steps at most 0.8 % longer. float16 could not hold the scale of small changes, and in
int4 with its many groups float32 scales would add 6 % to a message's bytes.

Tensors with fewer than two axes (biases) are sent as float16: they are about 1 % of a slice.
Integers and booleans are sent unchanged in every wire dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.blocks import Blocks, blocks_of, joined, rooms
from flower_ist.wire.layout import CodecError, WireError
from flower_ist.wire.protocol import COMPACT

WIRE_DTYPES = ("float32", "float16", "int8", "int4")
# With the one of flower_ist.wire.compact, in which a tensor's size depends on its values.
CODECS = (*WIRE_DTYPES, COMPACT)

_LEVELS = {"int8": 127, "int4": 7}
_GROUP = {"int8": None, "int4": 64}
_SCALE_BYTES = 2

Shape = tuple[int, ...]
Bytes = bytes | memoryview | NDArray[np.uint8]


def check_wire_dtype(wire_dtype: str) -> None:
    """Refuse a wire dtype that does not exist.

    Raises:
        WireError: there is no such wire dtype; the message names the choices.
    """
    if wire_dtype not in CODECS:
        raise WireError(
            f"There is no wire dtype {wire_dtype!r}: choose one of {', '.join(CODECS)}."
        )


def noise_of(*seeds: int) -> np.random.Philox:
    """Return the random bits for stochastic rounding that belong to seeds, the same anywhere."""
    return np.random.Philox(np.random.SeedSequence(seeds))


def encode(tensor: NDArray[Any], wire_dtype: str, noise: np.random.Philox | None = None) -> bytes:
    """Return a tensor's bytes on the wire, little-endian: its scales, then its numbers.

    Args:
        tensor: of any shape; see the module docstring for what is quantized.
        wire_dtype: one of :data:`WIRE_DTYPES`; ``float32`` leaves the tensor as it is.
        noise: random bits for stochastic rounding; None rounds to the nearest.

    Raises:
        CodecError: it holds values that are not finite, or too large for the wire dtype.
    """
    out = np.empty(encoded_bytes(tensor.dtype, tensor.shape, wire_dtype), np.uint8)
    encode_blocks(blocks_of(tensor), tensor.dtype, tensor.shape, wire_dtype, out, noise)
    return out.tobytes()


def encode_blocks(
    blocks: Blocks,
    dtype: np.dtype[Any],
    shape: Shape,
    wire_dtype: str,
    out: NDArray[np.uint8],
    noise: np.random.Philox | None = None,
) -> None:
    """Write what :func:`encode` returns of a tensor that comes in blocks.

    Args:
        blocks: of the tensor.
        dtype: the tensor's.
        shape: the tensor's.
        wire_dtype: as in :func:`encode`.
        out: as many bytes as :func:`encoded_bytes` says.
        noise: as in :func:`encode`.

    Raises:
        CodecError: as in :func:`encode`.
    """
    form = _form(dtype, shape, wire_dtype)
    if form in _LEVELS:
        _quantize(blocks, shape, form, out, noise)
        return
    little = out.view("<f2" if form == "float16" else dtype.newbyteorder("<")).reshape(shape)
    with np.errstate(over="ignore"):
        for run, block in blocks:
            little[run] = block
    if form == "float16" and not np.isfinite(little).all():
        raise CodecError("holds values beyond float16's 65504, or none that are numbers")


def _quantize(
    blocks: Blocks,
    shape: Shape,
    form: str,
    out: NDArray[np.uint8],
    noise: np.random.Philox | None,
) -> None:
    """Write a tensor's scales and numbers."""
    rows, groups, group = _groups(shape, form)
    length, levels = _row_length(shape), np.float32(_LEVELS[form])
    scale_bytes = rows * groups * _SCALE_BYTES
    stored = out[:scale_bytes].view("<u2").reshape(rows, groups)
    for (run, block), (_, room) in zip(blocks, rooms((rows, length), np.float32), strict=True):
        assert isinstance(run, slice)
        numbers = block.reshape(len(block), length)
        if groups * group > length:
            numbers = np.pad(numbers, ((0, 0), (0, groups * group - length)))
            room = np.empty(numbers.shape, np.float32)
        with np.errstate(over="ignore"):
            parts = numbers.astype(np.float32, copy=False).reshape(len(block), groups, group)
        divided = room.reshape(parts.shape)
        largest = np.abs(parts, out=divided).max(axis=-1, initial=0.0)
        if not np.isfinite(largest).all():
            raise CodecError("holds values that are not finite numbers")
        stored[run] = _scales_to_bits(largest / levels)
        scales = _bits_to_scales(stored[run])
        scales[scales == 0] = 1  # of nothing but zeros
        np.divide(parts, scales[..., None], out=divided)
        exact = room[:, :length]
        if noise is None:
            np.rint(exact, out=exact)
        else:
            exact += _uniform(noise, exact.shape)
            np.floor(exact, out=exact)
            np.clip(exact, -levels, levels, out=exact)
        body = _body(out, run, length, scale_bytes, form)
        if form == "int8":
            np.copyto(body.view(np.int8).reshape(exact.shape), exact, casting="unsafe")
        else:
            body[...] = _pairs(exact.astype(np.int8).reshape(-1))


def decode(data: Bytes, dtype: np.dtype[Any], shape: Shape, wire_dtype: str) -> NDArray[Any]:
    """Return the tensor of this dtype and shape that :func:`encode` made the bytes from.

    The result of ``raw`` bytes is a read-only view. What is allocated depends on the shape alone.

    Raises:
        CodecError: there are more or fewer bytes than such a tensor takes.
    """
    expected = encoded_bytes(dtype, shape, wire_dtype)
    if len(data) != expected:
        raise CodecError(f"has {len(data)} bytes instead of {expected}")
    form = _form(dtype, shape, wire_dtype)
    if form == "raw":
        return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
    if form == "float16":
        return np.frombuffer(data, "<f2").reshape(shape).astype(dtype)
    return joined(decode_blocks(data, dtype, shape, wire_dtype), dtype, shape)


def decode_blocks(data: Bytes, dtype: np.dtype[Any], shape: Shape, wire_dtype: str) -> Blocks:
    """Yield the blocks of :func:`decode`."""
    form = _form(dtype, shape, wire_dtype)
    if form not in _LEVELS:
        yield from blocks_of(decode(data, dtype, shape, wire_dtype))
        return
    scales, groups, group = _scales(data, shape, form)
    length, bits = _row_length(shape), np.frombuffer(data, np.uint8)
    for run, block in rooms((shape[0], length), dtype):
        assert isinstance(run, slice)
        body, of = _body(bits, run, length, scales.size * _SCALE_BYTES, form), scales[run]
        whole = body.view(np.int8) if form == "int8" else _unpaired(body)[: block.size]
        if groups > 1:
            of = np.repeat(of, group, axis=1)[:, :length]
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(whole.reshape(block.shape), of, out=block, casting="same_kind")
        yield run, block.reshape(-1, *shape[1:])


def at_most(data: Bytes, dtype: np.dtype[Any], shape: Shape, wire_dtype: str) -> float:
    """Return a magnitude that no number of a tensor exceeds, as far as its scales tell it.

    Args:
        data: what :func:`decode` would take.
        dtype: the tensor's.
        shape: the tensor's.
        wire_dtype: what it was encoded in.

    Returns:
        Infinity where there are no scales, and NaN where one of them is NaN.
    """
    form = _form(dtype, shape, wire_dtype)
    if form not in _LEVELS:
        return math.inf
    return float(np.abs(_scales(data, shape, form)[0]).max()) * (_LEVELS[form] + 1)


def encoded_bytes(dtype: np.dtype[Any], shape: Shape, wire_dtype: str) -> int:
    """Return how many bytes such a tensor takes on the wire."""
    form = _form(dtype, shape, wire_dtype)
    count = math.prod(shape)
    if form == "raw":
        return count * dtype.itemsize
    if form == "float16":
        return count * 2
    rows, groups, _ = _groups(shape, form)
    return rows * groups * _SCALE_BYTES + (count if form == "int8" else -(-count // 2))


def _form(dtype: np.dtype[Any], shape: Shape, wire_dtype: str) -> str:
    if dtype.kind != "f" or wire_dtype == "float32":
        return "raw"
    return "float16" if len(shape) < 2 or not math.prod(shape) else wire_dtype


def _row_length(shape: Shape) -> int:
    return math.prod(shape[1:])


def _groups(shape: Shape, form: str) -> tuple[int, int, int]:
    """Return the numbers of rows, groups per row and entries per group (the last may be short)."""
    length = _row_length(shape)
    groups = -(-length // (_GROUP[form] or length))
    return shape[0], groups, -(-length // groups)


def _scales(data: Bytes, shape: Shape, form: str) -> tuple[NDArray[np.float32], int, int]:
    """Return the scales (rows, groups), and groups and entries as :func:`_groups` has them."""
    rows, groups, group = _groups(shape, form)
    bits = np.frombuffer(data, "<u2", count=rows * groups)
    return _bits_to_scales(bits).reshape(rows, groups), groups, group


def _body(
    data: NDArray[np.uint8], run: slice, length: int, scale_bytes: int, form: str
) -> NDArray[np.uint8]:
    """Return the bytes of some rows' numbers; a run begins with a whole byte."""
    per_byte = 1 if form == "int8" else 2
    start, stop = (scale_bytes + -(-row * length // per_byte) for row in (run.start, run.stop))
    return data[start:stop]


def _scales_to_bits(scales: NDArray[np.float32]) -> NDArray[np.uint16]:
    # A positive float32 with its lower half cut off is the next smaller bfloat16.
    return ((scales.view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)).astype("<u2")


def _bits_to_scales(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _uniform(noise: np.random.Philox, shape: Shape) -> NDArray[np.float32]:
    """Return random midpoints of 65536 equal parts of the interval from 0 to 1.

    None is so close to 1 that adding it to an integer up to 127 would give the next integer.
    """
    count = math.prod(shape)
    raw = noise.random_raw(-(-count // 4)).astype("<u8").view("<u2")[:count]
    return (raw.reshape(shape).astype(np.float32) + np.float32(0.5)) / np.float32(65536)


def _pairs(whole: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Put two numbers from -8 to 7 into each byte, the first in its lower half."""
    halves = (whole & 0x0F).astype(np.uint8)
    if len(halves) % 2:
        halves = np.append(halves, np.uint8(0))
    return halves[::2] | (halves[1::2] << np.uint8(4))


def _unpaired(data: Bytes) -> NDArray[np.int8]:
    pairs = np.frombuffer(data, np.uint8)
    halves = np.stack([pairs & 0x0F, pairs >> 4], axis=-1).reshape(-1).astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)
