"""A token shard's metadata: what the arrays are, how they were made, and what is refused.

It is the content of a shard's ``meta.json``; :mod:`flower_ist.tokens.shard` reads the arrays. This
module needs only numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from flower_ist.differences import differences
from flower_ist.errors import FlowerIstError

FORMAT = "flower-ist-tokens"
VERSION = 1
TOKEN_DTYPES = ("float16", "float32", "int8")
_PLAIN_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "text"),
}
# The format keeps its original spelling.
_STORED_NORMALIZATION = "normalisation"
T = TypeVar("T")
Reading = Mapping[str, int | str]
"""Options of ``prep`` -> what they were, see :class:`ShardMeta`."""


class ShardError(FlowerIstError):
    """A token shard is missing, damaged, of a different version, or cannot be written."""


@dataclass(frozen=True)
class Encoder:
    """The frozen network that made the tokens.

    ``weights_sha256`` is the hash of the weight file; :func:`encoder_space` says what else decides
    whether two clients' tokens are in the same space. ``image_size`` and ``patch_size`` are in
    pixels. ``pool`` is ``cls`` or ``mean`` (of the kept patches, or of a CNN's last feature map).
    ``layer`` is the number of blocks that were run, 0 for all. ``dtype`` and ``device`` are those
    of the computation. ``interpolation`` is how images are resized; the default is not written, so
    that a shard of it is the same as one of a release without this entry.
    """

    name: str
    weights_sha256: str
    image_size: int
    patch_size: int
    pool: str = "cls"
    normalization: str = "imagenet"
    layer: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    interpolation: str = "bicubic"

    def to_json(self) -> dict[str, Any]:
        """Return it as in a shard's ``meta.json``."""
        content = _renamed(asdict(self), "normalization", _STORED_NORMALIZATION)
        if self.interpolation == Encoder.interpolation:
            del content["interpolation"]
        return dict(content)


def encoder_space(encoder: Encoder) -> dict[str, int | str]:
    """Return what must be equal for the tokens of two shards to be in one space, by field.

    These are the weights and everything that changes the function computed with them: sizes
    (positions and patches are resampled to them) and how images get there, normalization, how many
    blocks are run, and how the last one is pooled. The name is a label, and the dtype and device of
    the computation change only the rounding. A mask changes how much of an image a token covers,
    not what a token means. How unusual images are read may differ as the clients' cameras do.
    """
    return {
        "weights_sha256": encoder.weights_sha256,
        "image_size": encoder.image_size,
        "patch_size": encoder.patch_size,
        "pool": encoder.pool,
        "normalization": encoder.normalization,
        "layer": encoder.layer,
        "interpolation": encoder.interpolation,
    }


def encoder_settings(encoder: Encoder) -> str:
    """Return the space without the weights as a string: ``image_size=28 patch_size=4 ...``.

    Messages and files carry it beside the weights' hash, so that a comparison of two strings can
    say what differs.
    """
    space = _renamed(encoder_space(encoder), "normalization", _STORED_NORMALIZATION)
    del space["weights_sha256"]
    if encoder.interpolation == Encoder.interpolation:
        del space["interpolation"]  # as a release that does not know it would say
    # Six numbers may be written with spaces, which separate the settings here.
    return " ".join(f"{name}={''.join(str(value).split())}" for name, value in space.items())


def unlike_settings(one: str, other: str) -> str:
    """Return how the second of two :func:`encoder_settings` differs from the first, in words."""
    # Releases may differ in what they report, and a client may say anything.
    unsaid = {"interpolation": Encoder.interpolation}
    first, second = (
        unsaid | {p.partition("=")[0]: p.partition("=")[2] for p in text.split()}
        for text in (one, other)
    )
    return differences(first, second)


def content_digest(meta: ShardMeta) -> str:
    """Return 16 characters that change when a shard's content does; nothing for one in memory."""
    if not meta.sha256:
        return ""
    return hashlib.sha256(repr(sorted(meta.sha256.items())).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Mask:
    """How patches were dropped. ``kept`` of ``patches`` patches per image were encoded.

    With ``views`` above 1 every image has that many consecutive examples: example ``i`` was encoded
    under the mask of epoch ``i % views`` of its image.
    """

    kind: str
    ratio: float
    seed: int
    patches: int
    kept: int
    views: int = 1


@dataclass(frozen=True)
class ShardMeta:
    """What a shard holds and how it was made.

    The three ``*_bytes`` fields are totals over the shard's examples, in bytes:
    ``image_bytes`` is height x width x channels at the native size, ``image_file_bytes`` is the
    size of the stored image files, ``masked_image_bytes`` is the size of the kept patches at the
    native size plus the mask (0 where the mask follows from seed and image id).

    ``reading`` has the choices that ``prep`` was given for images that are not plain 8-bit RGB or
    gray, by the names of its options: only those that are not its defaults.
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
    reading: Reading = field(default_factory=dict)

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
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        if not self.reading:
            del content["reading"]
        return content | {"encoder": self.encoder.to_json()}

    @classmethod
    def from_json(cls, content: object, where: str) -> ShardMeta:
        """Parse and check the content of ``meta.json``; ``where`` names it in errors.

        Raises:
            ShardError: an entry is missing, unknown, of the wrong type or impossible.
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
                    entry = _renamed(entries[name], _STORED_NORMALIZATION, "normalization")
                    entries[name] = _build(kind, entry, name)
            if isinstance(entries.get("class_names"), list):
                entries["class_names"] = tuple(entries["class_names"])
            meta = _build(cls, entries, "the meta data")
            meta.check()
        except (TypeError, ValueError) as err:
            raise ShardError(f"{where} is incomplete or edited: {err}.") from err
        return meta

    def check(self) -> None:
        """Raise TypeError or ValueError if an entry is of the wrong type or out of range."""
        encoder, mask, names = self.encoder, self.mask, self.class_names
        if not isinstance(encoder, Encoder) or not isinstance(mask, Mask):
            raise TypeError("encoder and mask must be objects")
        for owner, record in (("", self), ("encoder.", encoder), ("mask.", mask)):
            _check_types(record, owner)
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise TypeError("class_names must be a list of texts")
        if not isinstance(self.sha256, Mapping):
            raise TypeError("sha256 must be an object of array names and hashes")
        check_reading(self.reading)
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
            "mask.views": (mask.views, 1),
            "encoder.layer": (encoder.layer, 0),
        }
        for name, (value, bound) in least.items():
            if value < bound:
                raise ValueError(f"{name} must be at least {bound}, not {value}")
        if not 0 <= mask.ratio < 1:
            raise ValueError(f"mask.ratio must be at least 0 and below 1, not {mask.ratio}")
        if self.num_examples % mask.views:
            raise ValueError(f"{self.num_examples} examples are not {mask.views} views an image")
        if mask.kept > mask.patches:
            raise ValueError(f"mask.kept is {mask.kept} of only {mask.patches} patches")
        if self.token_dtype not in TOKEN_DTYPES:
            raise ValueError(f"token_dtype must be one of {TOKEN_DTYPES}, not {self.token_dtype!r}")


def check_reading(reading: object) -> None:
    """Raise TypeError if something is no record of how unusual images are read."""
    if not isinstance(reading, Mapping) or not all(
        isinstance(name, str) and type(value) in (int, str) for name, value in reading.items()
    ):
        raise TypeError("reading must be an object of options and their values")


def _renamed(entries: Any, old: str, new: str) -> Any:
    """Return a JSON object with one key renamed in its place; anything else unchanged."""
    if not isinstance(entries, dict):
        return entries
    return {new if key == old else key: value for key, value in entries.items()}


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
            # In Python a bool is an int, but true is not a size.
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{owner}{f.name} must be {words}, not {value!r}")
