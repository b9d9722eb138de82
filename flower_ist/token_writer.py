"""Write token shards: a folder of ``.npy`` files in bounded memory, or one JSON text file."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flower_ist.token_meta import ShardError, ShardMeta
from flower_ist.tokens import META_FILE, TokenShard, array_sha256


def quantise_rows(
    tokens: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round tokens (N, D) to int8 (N, D) with one float32 scale a row (N,).

    The scale is ``max|row| / 127``, so an entry's error is at most half its row's scale. A row of
    zeros, or of numbers too small for a float32 scale, becomes zeros with scale 0.
    """
    values = np.asarray(tokens, dtype=np.float32)
    scales = np.abs(values).max(axis=1) / np.float32(127)
    # A subnormal scale has too few bits to divide by: such a row is zero for every purpose.
    scales[scales < np.finfo(np.float32).tiny] = 0
    divisors = np.where(scales > 0, scales, np.float32(np.inf))
    return np.rint(values / divisors[:, None]).astype(np.int8), scales


class ShardWriter:
    """Write a shard of known size chunk by chunk, in bounded memory.

    The folder appears under its name only when :meth:`close` has written everything; an exception
    in the ``with`` block removes what was written.

    Raises:
        ShardError: the folder exists, cannot be written or does not fit on the disk, or the data
            do not fit the meta data.
    """

    def __init__(self, folder: Path, meta: ShardMeta) -> None:
        self.folder = folder.absolute()
        if self.folder.exists():
            raise ShardError(f"{self.folder} exists already: choose another folder or remove it.")
        _check_meta(meta)
        self.meta = meta
        self._filled = 0
        self._temporary = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.tmp")
        self._arrays: dict[str, NDArray[Any]] = {}
        try:
            self._temporary.mkdir(parents=True)
            self._create_arrays()
        except OSError as err:
            self._discard()
            raise ShardError(f"{self.folder} cannot be written: {err}.") from err
        except BaseException:
            self._discard()
            raise

    def _create_arrays(self) -> None:
        layout = self.meta.layout()
        needed = sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout.values())
        free = shutil.disk_usage(self._temporary).free
        # Writing a memory map on a full disk ends the process without a Python error.
        if needed > free:
            raise ShardError(
                f"{self.folder} needs {needed} bytes, but its disk has {free} bytes free."
            )
        for name, (dtype, shape) in layout.items():
            self._arrays[name] = np.lib.format.open_memmap(
                self._temporary / f"{name}.npy", mode="w+", dtype=dtype, shape=shape
            )

    def append(
        self,
        tokens: NDArray[np.floating[Any]],
        labels: NDArray[np.integer[Any]],
        image_ids: NDArray[np.integer[Any]],
    ) -> None:
        """Add rows: tokens (n, D) of any float dtype, labels (n,), image ids (n,)."""
        rows = slice(self._filled, self._filled + len(labels))
        if rows.stop > self.meta.num_examples or tokens.shape != (len(labels), self.meta.dim):
            raise ShardError(
                f"Tokens of shape {tokens.shape} do not fit after row {rows.start} of a shard of "
                f"{self.meta.num_examples} x {self.meta.dim}."
            )
        if labels.shape != image_ids.shape or labels.ndim != 1:
            raise ShardError(
                f"Labels of shape {labels.shape} and image ids of shape {image_ids.shape} must "
                "both have one entry a row."
            )
        if not len(labels):
            return
        self._check_rows(tokens, labels, image_ids, f"rows {rows.start} to {rows.stop - 1}")
        if self.meta.token_dtype == "int8":
            self._arrays["tokens"][rows], self._arrays["scales"][rows] = quantise_rows(tokens)
        else:
            with np.errstate(over="ignore"):
                stored = tokens.astype(self.meta.token_dtype)
            if not np.isfinite(stored).all():
                raise ShardError("A token is too large for float16: store this shard as float32.")
            self._arrays["tokens"][rows] = stored
        self._arrays["labels"][rows] = labels
        self._arrays["image_ids"][rows] = image_ids
        self._filled = rows.stop

    def _check_rows(
        self, tokens: NDArray[Any], labels: NDArray[Any], image_ids: NDArray[Any], where: str
    ) -> None:
        if not np.isfinite(tokens).all():
            raise ShardError(f"A token in {where} is not a finite number.")
        if labels.min() < 0 or labels.max() >= self.meta.num_classes:
            raise ShardError(f"A label in {where} is outside 0 to {self.meta.num_classes - 1}.")
        if image_ids.min() < 0:
            raise ShardError(f"An image id in {where} is negative: masks need ids from 0 up.")

    def close(self) -> None:
        """Write the meta data with each array's hash, then give the folder its name."""
        if self._filled != self.meta.num_examples:
            raise ShardError(
                f"{self._filled} of {self.meta.num_examples} examples were written to "
                f"{self.folder}: a shard must be complete."
            )
        hashes = {name: array_sha256(array) for name, array in self._arrays.items()}
        meta = replace(self.meta, sha256=hashes)
        # Dropping a memory map writes its pages and closes its file.
        self._arrays.clear()
        text = json.dumps(meta.to_json(), indent=2) + "\n"
        try:
            (self._temporary / META_FILE).write_text(text, encoding="utf-8")
            os.rename(self._temporary, self.folder)
        except OSError as err:
            raise ShardError(f"{self.folder} cannot be written: {err}.") from err

    def _discard(self) -> None:
        self._arrays.clear()
        shutil.rmtree(self._temporary, ignore_errors=True)

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
        try:
            if kind is None:
                self.close()
        finally:
            self._discard()


def write_text(shard: TokenShard, path: Path) -> None:
    """Write a shard as one JSON text file (base64 arrays), for bundles that carry only text.

    The same shard gives the same bytes. A file of that name is replaced.

    Raises:
        ShardError: the shard is a view of other rows than its meta data count, or the file cannot
            be written.
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as err:
        temporary.unlink(missing_ok=True)
        raise ShardError(f"{path} cannot be written: {err}.") from err


def _check_meta(meta: ShardMeta) -> None:
    try:
        meta.check()
    except (TypeError, ValueError) as err:
        raise ShardError(f"The shard cannot be written: {err}.") from err
