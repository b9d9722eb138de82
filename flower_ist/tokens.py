"""Token shards: one client's pre-encoded images, memory-mapped and checked.

A shard is a folder (or one JSON text file, for app bundles that carry only text) that holds

* ``tokens``    (N, D) float16, float32 or int8: one CLS token per image;
* ``scales``    (N,) float32, only with int8: ``token = int8 * scale``, one scale per row;
* ``labels``    (N,) int32 in ``[0, C)``;
* ``image_ids`` (N,) int64, not negative: with the mask's seed they let anyone draw a mask again;
* ``meta.json`` a small file that says what the arrays are and how they were made.

Arrays on disk are plain ``.npy`` files without pickles. This module reads shards and needs numpy
only; :mod:`flower_ist.token_writer` writes them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FORMAT = "flower-ist-tokens"
VERSION = 1
TOKEN_DTYPES = ("float16", "float32", "int8")
META_FILE = "meta.json"
_CHUNK_BYTES = 1 << 22
_PLAIN_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "text"),
}
T = TypeVar("T")


class ShardError(ValueError):
    """A token shard is missing, damaged, of another version, or cannot be written."""


@dataclass(frozen=True)
class Encoder:
    """The frozen network that made the tokens.

    ``weights_sha256`` is the hash of the weights' file, so that two clients can see whether their
    tokens live in the same space. ``image_size`` and ``patch_size`` are in pixels.
    """

    name: str
    weights_sha256: str
    image_size: int
    patch_size: int
    pool: str = "cls"
    normalisation: str = "imagenet"


@dataclass(frozen=True)
class Mask:
    """How patches were dropped. ``kept`` of ``patches`` patches per image were encoded."""

    kind: str
    ratio: float
    seed: int
    patches: int
    kept: int


@dataclass(frozen=True)
class ShardMeta:
    """What a shard holds and where it comes from.

    The three ``*_bytes`` fields are totals over the shard's images, in bytes:
    ``image_bytes`` is height x width x channels at the native size, ``image_file_bytes`` is what
    the images take as stored files, ``masked_image_bytes`` is the kept patches only at the native
    size plus the mask (0 where the mask follows from seed and image id).
    """

    num_examples: int
    dim: int
    class_names: tuple[str, ...]
    encoder: Encoder
    mask: Mask
    image_bytes: int
    image_file_bytes: int
    masked_image_bytes: int
    token_dtype: str = "float16"
    client: str = ""
    split: str = "train"
    source: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    def layout(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Name, dtype and shape of each array that this shard must hold."""
        n = self.num_examples
        arrays: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
            "tokens": (np.dtype(self.token_dtype), (n, self.dim)),
            "labels": (np.dtype(np.int32), (n,)),
            "image_ids": (np.dtype(np.int64), (n,)),
        }
        if self.token_dtype == "int8":
            arrays["scales"] = (np.dtype(np.float32), (n,))
        return arrays

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``meta.json``."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: object, where: str) -> ShardMeta:
        """Parse and check the content of ``meta.json``; ``where`` names it in errors.

        Raises:
            ShardError: an entry is missing, unknown, of another type or impossible.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ShardError(
                f"{where} is not a token shard's meta data: its format is not {FORMAT!r}."
            )
        if content.get("version") != VERSION:
            raise ShardError(
                f"{where} has format version {content.get('version')!r}, but this release reads "
                f"version {VERSION}: encode the shard again or use the release that wrote it."
            )
        entries = {k: v for k, v in content.items() if k not in ("format", "version", "data")}
        try:
            for name, kind in (("encoder", Encoder), ("mask", Mask)):
                if name in entries:
                    entries[name] = _build(kind, entries[name], name)
            if isinstance(entries.get("class_names"), list):
                entries["class_names"] = tuple(entries["class_names"])
            meta = _build(cls, entries, "the meta data")
            meta.check()
        except (TypeError, ValueError) as err:
            raise ShardError(f"{where} is incomplete or edited: {err}.") from err
        return meta

    def check(self) -> None:
        """Raise TypeError or ValueError where an entry is of a wrong type or out of range."""
        encoder, mask, names = self.encoder, self.mask, self.class_names
        if not isinstance(encoder, Encoder) or not isinstance(mask, Mask):
            raise TypeError("encoder and mask must be objects")
        for owner, record in (("", self), ("encoder.", encoder), ("mask.", mask)):
            _check_types(record, owner)
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise TypeError("class_names must be a list of texts")
        if not isinstance(self.sha256, Mapping):
            raise TypeError("sha256 must be an object of array names and hashes")
        least = {
            "num_examples": (self.num_examples, 1),
            "dim": (self.dim, 1),
            "the number of classes": (self.num_classes, 1),
            "image_bytes": (self.image_bytes, 0),
            "image_file_bytes": (self.image_file_bytes, 0),
            "masked_image_bytes": (self.masked_image_bytes, 0),
            "encoder.image_size": (encoder.image_size, 1),
            "encoder.patch_size": (encoder.patch_size, 1),
            "mask.seed": (mask.seed, 0),
            "mask.kept": (mask.kept, 1),
        }
        for name, (value, bound) in least.items():
            if value < bound:
                raise ValueError(f"{name} must be at least {bound}, not {value}")
        if not 0 <= mask.ratio < 1:
            raise ValueError(f"mask.ratio must be at least 0 and below 1, not {mask.ratio}")
        if mask.kept > mask.patches:
            raise ValueError(f"mask.kept is {mask.kept} of only {mask.patches} patches")
        if self.token_dtype not in TOKEN_DTYPES:
            raise ValueError(f"token_dtype must be one of {TOKEN_DTYPES}, not {self.token_dtype!r}")


@dataclass(frozen=True)
class TokenShard:
    """An opened shard. The arrays may be memory maps: nothing is read before it is used."""

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
        """Stored bytes that are read for one token, its scale included."""
        scale_bytes = 0 if self.scales is None else self.scales.itemsize
        return int(self.meta.dim * self.tokens.itemsize) + scale_bytes

    def batch(
        self, rows: NDArray[np.intp] | slice
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read rows as ``(tokens (n, D) float32, labels (n,) int64)``, both fresh copies."""
        tokens = self.tokens[rows].astype(np.float32)
        if self.scales is not None:
            tokens *= self.scales[rows, None]
        return tokens, self.labels[rows].astype(np.int64)

    def select(self, rows: slice) -> TokenShard:
        """Return a view of some rows; no data is copied and the meta data stay the shard's."""
        views = {name: array[rows] for name, array in self.arrays().items()}
        return TokenShard(meta=self.meta, **views)

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


def open_shard(path: Path, *, verify: bool = False) -> TokenShard:
    """Open a shard folder as memory maps, or a shard's text file in memory.

    Version, dtypes, shapes and file sizes are always checked. With ``verify`` (always for a text
    file) every byte is read: hashes must match, labels lie in ``[0, C)``, image ids are not
    negative, tokens and scales are finite and no scale is negative.

    Raises:
        ShardError: with one sentence that says what is wrong.
    """
    if path.is_file():
        content = _read_json(path)
        meta = ShardMeta.from_json(content, str(path))
        data = content.get("data")
        arrays = {
            name: _decode_array(path, data, name, *meta.layout()[name]) for name in meta.layout()
        }
        verify = True
    elif path.is_dir():
        meta = ShardMeta.from_json(_read_json(path / META_FILE), str(path / META_FILE))
        arrays = {
            name: _map_array(path / f"{name}.npy", *form) for name, form in meta.layout().items()
        }
    else:
        raise ShardError(f"There is no token shard at {path.absolute()}: check the path.")
    if verify:
        _check_content(meta, arrays, str(path))
    return TokenShard(meta=meta, **arrays)


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


def _build(kind: type[T], content: object, name: str) -> T:
    if not isinstance(content, dict):
        raise TypeError(f"{name} must be an object")
    known = fields(kind)  # type: ignore[arg-type]
    needed = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(needed - content.keys()):
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    if unknown := sorted(content.keys() - {f.name for f in known}):
        raise ValueError(f"{name} has unknown entries: {', '.join(unknown)}")
    return kind(**content)


def _check_types(record: Any, owner: str) -> None:
    for f in fields(record):
        value = getattr(record, f.name)
        if f.type in _PLAIN_TYPES:
            kind, words = _PLAIN_TYPES[f.type]
            # bool is an int to Python, but true is no size.
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{owner}{f.name} must be {words}, not {value!r}")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(f"{path} is missing: the folder is not a complete token shard.") from None
    except (OSError, ValueError, RecursionError) as err:
        raise ShardError(f"{path} cannot be read: {err}.") from err


def _map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        file_bytes = path.stat().st_size
    except FileNotFoundError:
        raise ShardError(f"{path} is missing: the folder is not a complete token shard.") from None
    except (OSError, ValueError, EOFError, OverflowError) as err:
        raise ShardError(f"{path} is truncated or not a plain .npy file: {err}.") from err
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


def _check_content(meta: ShardMeta, arrays: Mapping[str, NDArray[Any]], where: str) -> None:
    for name, array in arrays.items():
        if meta.sha256.get(name) != array_sha256(array):
            raise ShardError(f"{where}: array {name!r} does not match its hash: it was changed.")
        if array.dtype.kind == "f" and not all(np.isfinite(part).all() for part in _chunks(array)):
            raise ShardError(f"{where}: array {name!r} holds a number that is not finite.")
    if arrays["labels"].min() < 0 or arrays["labels"].max() >= meta.num_classes:
        raise ShardError(f"{where}: a label is outside 0 to {meta.num_classes - 1}.")
    for name in ("image_ids", "scales"):
        if name in arrays and arrays[name].min() < 0:
            raise ShardError(f"{where}: array {name!r} holds a negative number.")
