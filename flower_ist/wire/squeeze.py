"""Lossless compression of sums and of the token prior by Python's standard library.

Their numbers are noise to a compressor that looks for repeated strings, but most of them are near
0. Two coders use that: LZMA's literals are coded by an adaptive range coder, which is best where
most numbers are 0, and deflate's by a Huffman code (``Z_RLE``: of strings only runs count), which
is best at more than about four bits a number. Both are tried, and the shorter result is sent; bytes
that neither shortens are sent as they are.

LZMA takes a tenth of a second for a megabyte: enough for what is sent once in a run. Weights, which
are sent in every round, have a faster coder of their own (:mod:`flower_ist.wire.ans`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.wire.layout import CodecError, Layout

_STORED, _LZMA, _DEFLATE = 0, 1, 2


def squeeze(data: bytes) -> bytes:
    """Return bytes in at most one byte more, the same for the same bytes on one machine."""
    import lzma  # a device that is never asked for it need not have it

    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
    found = [
        bytes([_STORED]) + data,
        bytes([_LZMA]) + lzma.compress(data, lzma.FORMAT_RAW, filters=_filters()),
        bytes([_DEFLATE]) + deflate.compress(data) + deflate.flush(),
    ]
    return min(found, key=len)


def unsqueeze(data: bytes | memoryview, size: int) -> bytes:
    """Return the bytes that :func:`squeeze` was given. No more than they take is allocated.

    Args:
        data: from the network.
        size: how many bytes they must be.

    Raises:
        CodecError: they are other bytes, or more or fewer.
    """
    if not 0 < len(data) <= size + 1:
        raise CodecError(f"has {len(data)} bytes instead of 1 to {size + 1}")
    form, body = data[0], bytes(data[1:])
    if form == _STORED:
        found, ended = body, True
    elif form == _LZMA:
        found, ended = _unlzma(body, size)
    elif form == _DEFLATE:
        found, ended = _inflate(body, size)
    else:
        raise CodecError(f"is compressed in form {form}, which is not known here")
    if not ended or len(found) != size:
        raise CodecError(f"does not hold {size} bytes")
    return found


def squeezed(tensors: Mapping[str, NDArray[Any]], layout: Layout) -> bytes:
    """Return tensors, exactly those of a layout, compressed."""
    return squeeze(b"".join(planes(tensors[name]) for name in layout))


def unsqueezed(data: bytes, layout: Layout) -> dict[str, NDArray[Any]]:
    """Return the tensors that :func:`squeezed` was given.

    Raises:
        CodecError: the bytes are not those of such tensors.
    """
    sizes = [math.prod(shape) * dtype.itemsize for dtype, shape in layout.values()]
    raw, tensors, offset = unsqueeze(data, sum(sizes)), {}, 0
    for (name, (dtype, shape)), size in zip(layout.items(), sizes, strict=True):
        tensors[name] = from_planes(raw[offset : offset + size], dtype, shape)
        offset += size
    return tensors


def planes(numbers: NDArray[Any]) -> bytes:
    """Return numbers as the first bytes of all of them, then the second ones and so on.

    Signed numbers of two bytes or more become 0, -1, 1, -2, 2 ... first, so that the upper bytes of
    small ones are 0.
    """
    flat = np.ascontiguousarray(numbers).reshape(-1)
    if flat.dtype.kind == "i" and flat.itemsize > 1:
        flat = (flat << 1) ^ (flat >> (8 * flat.itemsize - 1))
    little = np.ascontiguousarray(flat, flat.dtype.newbyteorder("<"))
    return np.ascontiguousarray(little.view(np.uint8).reshape(len(flat), flat.itemsize).T).tobytes()


def from_planes(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the numbers (shape) that :func:`planes` was given, in an array of their own."""
    count = len(data) // dtype.itemsize
    bytes_of = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, count)
    flat = np.ascontiguousarray(bytes_of.T).view(dtype.newbyteorder("<")).astype(dtype, copy=False)
    if dtype.kind == "i" and dtype.itemsize > 1:
        unsigned = flat.view(dtype.str.replace("i", "u"))
        flat = ((unsigned >> 1).view(dtype)) ^ -(flat & 1)
    return flat.reshape(shape)


def _filters() -> list[dict[str, int]]:
    """Return LZMA's settings: no context, and hardly any search for strings."""
    import lzma

    alone = {"lc": 0, "lp": 0, "pb": 0}
    search = {"mf": lzma.MF_BT2, "depth": 2, "nice_len": 273}
    return [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, **alone, **search}]


def _unlzma(body: bytes, size: int) -> tuple[bytes, bool]:
    import lzma

    reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters())
    try:
        found = reader.decompress(body, max_length=size + 1)
        # The mark behind the last byte may not have been reached yet.
        if not reader.eof and len(found) == size:
            found += reader.decompress(b"", max_length=1)
    except (lzma.LZMAError, EOFError) as err:
        raise CodecError("cannot be decompressed") from err
    return found, reader.eof and not reader.unused_data


def _inflate(body: bytes, size: int) -> tuple[bytes, bool]:
    reader = zlib.decompressobj(-15)
    try:
        found = reader.decompress(body, size + 1)
        return found, reader.eof and not reader.unused_data
    except zlib.error as err:
        raise CodecError("cannot be decompressed") from err
