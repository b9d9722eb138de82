"""Token shards: one client's pre-encoded images, memory-mapped and checked.

A shard is a folder (or one JSON text file, for app bundles that carry only text) that holds

* ``tokens``    (N, D) float16, float32 or int8: one CLS token per image;
* ``scales``    (N,) float32, only with int8: ``token = int8 * scale``, one scale per row;
* ``labels``    (N,) int32 in ``[0, C)``;
* ``image_ids`` (N,) int64, not negative: with the mask's seed they let anyone redraw a mask;
* ``meta.json`` a small file that says what the arrays are and how they were made.

Arrays on disk are plain ``.npy`` files without pickles. This module reads shards and needs only
numpy; :mod:`flower_ist.tokens.writer` writes them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import why_unreadable
from flower_ist.tokens.meta import Encoder, Mask, ShardError, ShardMeta

META_FILE = "meta.json"
_CHUNK_BYTES = 1 << 22

__all__ = [
    "META_FILE",
    "Encoder",
    "Mask",
    "ShardError",
    "ShardMeta",
    "TokenShard",
    "array_sha256",
    "client_folder",
    "is_shard",
    "open_shard",
    "test_folder",
    "verify_shard",
]


def client_folder(folder: Path, client: int) -> Path:
    """Return the path of a client's shard in a data folder; clients are numbered from 0."""
    return folder / f"client-{client}"


def test_folder(folder: Path) -> Path:
    """Return the path of the server's test shard in a data folder."""
    return folder / "test"


@dataclass(frozen=True)
class TokenShard:
    """An opened shard. The arrays may be memory maps, which are read only when used."""

    meta: ShardMeta
    tokens: NDArray[Any]
    labels: NDArray[np.int32]
    image_ids: NDArray[np.int64]
    scales: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of examples (of this view, not of the shard it came from)."""
        return len(self.labels)

    @property
    def token_bytes_per_example(self) -> int:
        """Number of stored bytes that are read for one token, including its scale."""
        scale_bytes = 0 if self.scales is None else self.scales.itemsize
        return int(self.meta.dim * self.tokens.itemsize) + scale_bytes

    def batch(
        self, rows: NDArray[np.intp] | slice = slice(None)
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read rows as ``(tokens (n, D) float32, labels (n,) int64)``, both fresh copies."""
        # Rows that are selected by index are already a copy.
        tokens = self.tokens[rows].astype(np.float32, copy=isinstance(rows, slice))
        if self.scales is not None:
            tokens *= self.scales[rows, None]
        return tokens, self.labels[rows].astype(np.int64)

    def select(self, rows: slice | NDArray[Any]) -> TokenShard:
        """Return some rows under the whole shard's metadata: of a slice as views, else as copies.

        Args:
            rows: a slice, indices, or a mask (N,).
        """
        return TokenShard(meta=self.meta, **{n: array[rows] for n, array in self.arrays().items()})

    def chunks(self, rows: int = 4096) -> Iterator[TokenShard]:
        """Yield views of so many rows each, one after the other: memory for one is enough."""
        for start in range(0, len(self), rows):
            yield self.select(slice(start, start + rows))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the stored arrays by name."""
        found: dict[str, NDArray[Any]] = {
            "tokens": self.tokens,
            "labels": self.labels,
            "image_ids": self.image_ids,
        }
        if self.scales is not None:
            found["scales"] = self.scales
        return found


def is_shard(path: Path) -> bool:
    """Return whether something is, or wants to be, a token shard: a folder or a text file."""
    return (path / META_FILE).is_file() or (path.suffix == ".json" and path.is_file())


def open_shard(path: Path, *, verify: bool = False) -> TokenShard:
    """Open a shard folder as memory maps, or a shard's text file in memory.

    Version, dtypes, shapes and file sizes are always checked. With ``verify`` (always for a text
    file) every byte is read: hashes must match, labels must lie in ``[0, C)``, image ids must not
    be negative, tokens and scales must be finite, and no scale may be negative.

    Raises:
        ShardError: with one sentence that says what is wrong.
    """
    try:
        # Python up to 3.13 raises if a parent folder cannot be entered or a name is too long.
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as err:
        raise ShardError(f"{path} cannot be read: {err.strerror}.") from err
    if is_file:
        content = _read_json(path)
        meta = ShardMeta.from_json(content, str(path))
        data = content.get("data")
        arrays = {
            name: _decode_array(path, data, name, *meta.layout()[name]) for name in meta.layout()
        }
        verify = True
    elif is_folder:
        meta = ShardMeta.from_json(_read_json(path / META_FILE), str(path / META_FILE))
        arrays = {
            name: _map_array(path / f"{name}.npy", *form) for name, form in meta.layout().items()
        }
    else:
        raise ShardError(f"There is no token shard at {path.absolute()}: check the path.")
    shard = TokenShard(meta=meta, **arrays)
    if verify:
        verify_shard(shard, str(path))
    return shard


def verify_shard(shard: TokenShard, where: str) -> None:
    """Read all of a shard and check its hashes and values; ``where`` names it in errors.

    Raises:
        ShardError: with one sentence that says what is wrong.
    """
    meta, arrays = shard.meta, shard.arrays()
    for name, array in arrays.items():
        if meta.sha256.get(name) != array_sha256(array):
            raise ShardError(f"{where}: array {name!r} does not match its hash: it was changed.")
        if array.dtype.kind == "f" and not all(np.isfinite(part).all() for part in _chunks(array)):
            raise ShardError(f"{where}: array {name!r} holds a number that is not finite.")
    if shard.labels.min() < 0 or shard.labels.max() >= meta.num_classes:
        raise ShardError(f"{where}: a label is outside 0 to {meta.num_classes - 1}.")
    for name in ("image_ids", "scales"):
        if name in arrays and arrays[name].min() < 0:
            raise ShardError(f"{where}: array {name!r} holds a negative number.")


def array_sha256(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's little-endian bytes in row order, read chunk by chunk."""
    digest = hashlib.sha256()
    for part in _chunks(array):
        digest.update(np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _chunks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    flat = array.reshape(-1)
    step = max(1, _CHUNK_BYTES // array.itemsize)
    return (flat[start : start + step] for start in range(0, len(flat), step))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(f"{path} is missing: the folder is not a complete token shard.") from None
    except (OSError, ValueError, RecursionError) as err:
        raise ShardError(f"{path} cannot be read: {why_unreadable(path, err)}.") from err


def _map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        file_bytes = path.stat().st_size
    except FileNotFoundError:
        raise ShardError(f"{path} is missing: the folder is not a complete token shard.") from None
    except Exception as err:  # numpy's header parser raises errors of many kinds
        raise ShardError(
            f"{path} is truncated or not a plain .npy file: {why_unreadable(path, err)}."
        ) from err
    if array.dtype != dtype or array.shape != shape:
        raise ShardError(
            f"{path} holds {array.dtype}{list(array.shape)}, but the shard's meta data say "
            f"{dtype}{list(shape)}."
        )
    if file_bytes != array.offset + array.nbytes:
        raise ShardError(f"{path} has bytes after its array: encode the shard again.")
    return array


def _decode_array(
    path: Path, data: object, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    if not isinstance(data, dict) or not isinstance(data.get(name), str):
        raise ShardError(f"{path} lacks its array {name!r}.")
    try:
        raw = base64.b64decode(data[name], validate=True)
    except ValueError as err:
        raise ShardError(f"{path}: array {name!r} is not base64 text.") from err
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ShardError(f"{path}: array {name!r} has {len(raw)} bytes instead of {expected}.")
    return np.frombuffer(raw, dtype=dtype.newbyteorder("<")).reshape(shape)
