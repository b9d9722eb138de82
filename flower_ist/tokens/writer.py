"""Write token shards: a folder of ``.npy`` files in bounded memory, or one JSON text file."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flower_ist.files import new_file, new_folder, write_file
from flower_ist.tokens.meta import ShardError, ShardMeta
from flower_ist.tokens.shard import META_FILE, TokenShard, array_sha256


def quantize_rows(
    tokens: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round tokens (N, D) to int8 (N, D) with one float32 scale a row (N,).

    The scale is ``max|row| / 127``, so an entry's error is at most half its row's scale. A row of
    zeros, or of numbers too small for a float32 scale, becomes zeros with scale 0.
    """
    values = np.asarray(tokens, dtype=np.float32)
    scales = np.abs(values).max(axis=1) / np.float32(127)
    # A subnormal scale has too few bits to divide by: such a row is treated as zero.
    scales[scales < np.finfo(np.float32).tiny] = 0
    divisors = np.where(scales > 0, scales, np.float32(np.inf))
    return np.rint(values / divisors[:, None]).astype(np.int8), scales


def stored_rows(
    tokens: NDArray[np.floating[Any]], token_dtype: str, where: str = "a batch"
) -> dict[str, NDArray[Any]]:
    """Return tokens (n, D) of any float dtype in stored form: ``tokens`` and, for int8, ``scales``.

    A row's stored form depends only on that row, so that rows may be rounded now and added to a
    shard later.

    Raises:
        ShardError: a token is not finite, or too large for float16; ``where`` names the rows.
    """
    if not np.isfinite(tokens).all():
        raise ShardError(f"A token in {where} is not a finite number.")
    if token_dtype == "int8":
        quantized, scales = quantize_rows(tokens)
        return {"tokens": quantized, "scales": scales}
    with np.errstate(over="ignore"):
        stored = tokens.astype(token_dtype)
    if not np.isfinite(stored).all():
        raise ShardError("A token is too large for float16: store this shard as float32.")
    return {"tokens": stored}


class ShardWriter:
    """Write a shard of known size chunk by chunk, in bounded memory.

    The folder appears under its name only when :meth:`close` has written everything; an exception
    in the ``with`` block removes what was written.

    Args:
        folder: The shard's final path.
        meta: What the shard will hold.
        scratch: An existing folder on the same disk for the unfinished shard; None for the shard's
            parent.

    Raises:
        ShardError: it does not fit on the disk, or the data does not match the metadata.
        NotWrittenError: the folder exists or cannot be written.
    """

    def __init__(self, folder: Path, meta: ShardMeta, scratch: Path | None = None) -> None:
        _check_meta(meta)
        self.folder = folder.absolute()
        self.meta = meta
        self._filled = 0
        self._hashes = {name: hashlib.sha256() for name in meta.layout()}
        with ExitStack() as unfinished:
            self._temporary = unfinished.enter_context(new_folder(folder, scratch=scratch))
            self._check_fit()
            # Plain files, not memory maps: if the disk fills up, writing to a memory map ends the
            # process without a Python error.
            self._files = {
                name: unfinished.enter_context(new_file(self._temporary / f"{name}.npy"))
                for name in meta.layout()
            }
            for name, (dtype, shape) in meta.layout().items():
                header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
                np.lib.format.write_array_header_1_0(self._files[name], header | {"shape": shape})
            self._unfinished = unfinished.pop_all()

    def _check_fit(self) -> None:
        """Refuse a shard that the disk cannot hold, before most of it is written."""
        layout = self.meta.layout()
        needed = sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout.values())
        free = shutil.disk_usage(self._temporary).free
        if needed > free:
            raise ShardError(
                f"{self.folder} needs {needed} bytes, but its disk has {free} bytes free."
            )

    def append(
        self,
        tokens: NDArray[np.floating[Any]],
        labels: NDArray[np.integer[Any]],
        image_ids: NDArray[np.integer[Any]],
    ) -> None:
        """Add rows: tokens (n, D) of any float dtype, labels (n,), image ids (n,)."""
        self._check_shapes(tokens, labels, image_ids)
        if len(labels):
            rows = stored_rows(tokens, self.meta.token_dtype, self._where(len(labels)))
            self.append_stored(rows, labels, image_ids)

    def append_stored(
        self,
        rows: Mapping[str, NDArray[Any]],
        labels: NDArray[np.integer[Any]],
        image_ids: NDArray[np.integer[Any]],
    ) -> None:
        """Add rows that :func:`stored_rows` made: ``tokens`` (n, D) and, for int8, ``scales``."""
        arrays: dict[str, NDArray[Any]] = {**rows, "labels": labels, "image_ids": image_ids}
        self._check_shapes(arrays["tokens"], labels, image_ids)
        if not len(labels):
            return
        where = self._where(len(labels))
        if labels.min() < 0 or labels.max() >= self.meta.num_classes:
            raise ShardError(f"A label in {where} is outside 0 to {self.meta.num_classes - 1}.")
        if image_ids.min() < 0:
            raise ShardError(f"An image id in {where} is negative: masks need ids from 0 up.")
        for name, (dtype, _) in self.meta.layout().items():
            array = np.ascontiguousarray(arrays[name], dtype=dtype)
            self._files[name].write(array.tobytes())
            self._hashes[name].update(array.astype(dtype.newbyteorder("<")).tobytes())
        self._filled += len(labels)

    def append_shard(self, shard: TokenShard) -> None:
        """Add a shard's rows in their stored form, so that nothing is rounded twice."""
        for part in shard.chunks():
            self.append_stored(part.arrays(), part.labels, part.image_ids)

    def _where(self, count: int) -> str:
        return f"rows {self._filled} to {self._filled + count - 1}"

    def _check_shapes(
        self, tokens: NDArray[Any], labels: NDArray[Any], image_ids: NDArray[Any]
    ) -> None:
        stop = self._filled + len(labels)
        if stop > self.meta.num_examples or tokens.shape != (len(labels), self.meta.dim):
            raise ShardError(
                f"Tokens of shape {tokens.shape} do not fit after row {self._filled} of a shard of "
                f"{self.meta.num_examples} x {self.meta.dim}."
            )
        if labels.shape != image_ids.shape or labels.ndim != 1:
            raise ShardError(
                f"Labels of shape {labels.shape} and image ids of shape {image_ids.shape} must "
                "both have one entry a row."
            )

    def close(self) -> None:
        """Write the metadata with each array's hash, then give the folder its name.

        Everything is on the disk before the name is, even after a power failure: once the shard
        exists, the files that it was made from may be removed.
        """
        with self._unfinished:
            if self._filled != self.meta.num_examples:
                raise ShardError(
                    f"{self._filled} of {self.meta.num_examples} examples were written to "
                    f"{self.folder}: a shard must be complete."
                )
            hashes = {name: digest.hexdigest() for name, digest in self._hashes.items()}
            text = json.dumps(replace(self.meta, sha256=hashes).to_json(), indent=2) + "\n"
            with new_file(self._temporary / META_FILE) as file:
                file.write(text.encode())

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close on success; remove everything on any exception."""
        if kind is None:
            self.close()
        else:
            self._unfinished.__exit__(kind, error, trace)


def write_text(shard: TokenShard, path: Path) -> None:
    """Write a shard as one JSON text file (base64 arrays), for bundles that carry only text.

    The same shard gives the same bytes. An existing file of that name is replaced.

    Raises:
        ShardError: the shard is a view whose number of rows differs from its metadata.
        NotWrittenError: the file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in shard.arrays().items()}
    _check_meta(shard.meta)
    if {name: (a.dtype, a.shape) for name, a in arrays.items()} != shard.meta.layout():
        raise ShardError(
            f"The shard holds {len(shard)} rows of other arrays than its meta data say: write a "
            "whole shard, not a view."
        )
    meta = replace(shard.meta, sha256={name: array_sha256(a) for name, a in arrays.items()})
    content = meta.to_json()
    content["data"] = {
        name: base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
        for name, array in arrays.items()
    }
    write_file(path, json.dumps(content, indent=1) + "\n")


def _check_meta(meta: ShardMeta) -> None:
    try:
        meta.check()
    except (TypeError, ValueError) as err:
        raise ShardError(f"The shard cannot be written: {err}.") from err
