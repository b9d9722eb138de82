"""The meta data of a folder of masked images: what its arrays are and how they were made.

The folder holds ``meta.json`` and plain ``.npy`` arrays of N images in one order:

* ``patches``      uint8, the kept patches: (N, k, P, P, C), or (bytes,) where images take different
  numbers of bytes, that is, where they are compressed or where some are gray and some are not;
* ``offsets``      (N + 1,) int64, only then: image i is ``patches[offsets[i]:offsets[i + 1]]``;
* ``channels``     (N,) uint8, 1 or 3, only where images differ in that;
* ``labels``       (N,) int32 in ``[0, C)``;
* ``image_ids``    (N,) int64, not negative: with the mask's seed they say which patches were kept;
* ``native_bytes`` (N,) int64, height x width x channels of the images that were masked;
* ``file_bytes``   (N,) int64, the bytes of their files, if they had any;
* ``owners``       (N,) texts, if they were known.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.pixels import INTERPOLATIONS
from data_prep.json_file import read_json
from data_prep.masks.names import KINDS, kept_count
from data_prep.patches.codec import COMPRESSIONS
from flower_ist.errors import first_line
from flower_ist.files import new_file
from flower_ist.tokens.meta import Mask, Reading, check_reading

FORMAT = "flower-ist-masked-images"
VERSION = 1
META_FILE = "meta.json"
REQUIRED = ("patches", "labels", "image_ids", "native_bytes")
OPTIONAL = ("offsets", "channels", "file_bytes", "owners")
_ENTRY_BYTES = {"offsets": 8, "channels": 1}


@dataclass(frozen=True)
class MaskedMeta:
    """What a folder of masked images holds; the totals are in bytes.

    Attributes:
        num_images: N.
        class_names: One name per class.
        mask: Which patches of an image were kept, by its id.
        image_size: Height and width in pixels that images were resized to before cutting.
        patch_size: Height and width of a patch in pixels.
        channels: 1 or 3 of every image, or 0 where they differ.
        interpolation: How images were resized.
        compression: A name in ``codec.COMPRESSIONS``.
        image_bytes: Height x width x channels at the native sizes.
        image_file_bytes: The images' files, or ``image_bytes`` where there were none.
        masked_bytes: The kept patches as stored, with 8 bytes an offset and 1 a channel count where
            those are stored.
        split: ``train`` or ``test``.
        source: Where the images come from, in words.
        reading: How unusual images were read, as in :class:`flower_ist.tokens.meta.ShardMeta`.
        sha256: Of each array by its name, as :func:`flower_ist.tokens.shard.array_sha256` has it.
    """

    num_images: int
    class_names: tuple[str, ...]
    mask: Mask
    image_size: int
    patch_size: int
    channels: int
    interpolation: str
    compression: str
    image_bytes: int
    image_file_bytes: int
    masked_bytes: int
    split: str
    source: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    reading: Reading = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``meta.json`` into a new folder."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        if not self.reading:
            del content["reading"]
        text = json.dumps(content, indent=2) + "\n"
        with new_file(folder / META_FILE) as file:
            file.write(text.encode())

    def check(self) -> None:
        """Raise TypeError or ValueError where an entry is of a wrong type or impossible."""
        mask, side = self.mask, self.image_size // self.patch_size
        sizes = (self.num_images, self.image_size, self.patch_size, mask.seed, mask.kept)
        totals = (self.image_bytes, self.image_file_bytes, self.masked_bytes)
        # bool is an int to Python, but true is no size.
        if any(type(value) is not int or value < 0 for value in (*sizes, *totals)):
            raise ValueError("sizes, seed and totals must be whole numbers of 0 and up")
        if not self.class_names or not all(isinstance(name, str) for name in self.class_names):
            raise TypeError("class_names must be a list of texts")
        if self.num_images < 1 or side < 1 or self.image_size % self.patch_size:
            raise ValueError("there must be images of whole patches")
        if mask.kind not in KINDS or mask.views != 1 or mask.patches != side * side:
            raise ValueError(f"its mask cannot be drawn: {mask}")
        if mask.kept != kept_count(mask.patches, mask.ratio):
            raise ValueError(f"a ratio of {mask.ratio} does not keep {mask.kept} patches")
        if self.channels not in (0, 1, 3) or self.compression not in COMPRESSIONS:
            raise ValueError("its channels or its compression are unknown")
        if self.interpolation not in INTERPOLATIONS or not isinstance(self.sha256, Mapping):
            raise ValueError("its interpolation or its hashes are unknown")
        check_reading(self.reading)
        unknown = set(self.sha256) - {*REQUIRED, *OPTIONAL}
        if unknown or not set(REQUIRED) <= set(self.sha256):
            raise ValueError("it must list the hash of each array")


def bytes_per_image(lengths: NDArray[np.int64], arrays: Collection[str]) -> NDArray[np.int64]:
    """Return the stored bytes (N,) of each image: its patches' ``lengths`` (N,) and its share.

    The share is its entry in each of ``offsets`` and ``channels`` that is among ``arrays``.
    """
    return lengths + sum(_ENTRY_BYTES.get(name, 0) for name in arrays)


def read_meta(folder: Path) -> MaskedMeta:
    """Read and check a folder's ``meta.json``.

    Raises:
        PrepError: it is missing, damaged, of another version, or was edited.
    """
    path = folder / META_FILE
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PrepError(f"{folder} is no folder of masked images: its format is not {FORMAT!r}.")
    if content.get("version") != VERSION:
        raise PrepError(
            f"{folder} holds masked images of version {content.get('version')!r}, but this release "
            f"reads version {VERSION}: mask the images again."
        )
    entries = {name: value for name, value in content.items() if name not in ("format", "version")}
    try:
        entries["mask"] = Mask(**entries["mask"])
        entries["class_names"] = tuple(entries["class_names"])
        meta = MaskedMeta(**entries)
        meta.check()
    except (PrepError, ArithmeticError, KeyError, TypeError, ValueError) as err:
        raise PrepError(f"{path} is incomplete or edited: {first_line(err)}.") from err
    return meta


def has_meta(folder: Path) -> bool:
    """Return whether a folder's ``meta.json`` says that it holds masked images."""
    path = folder / META_FILE
    if not path.is_file():
        return False
    content = read_json(path)
    return isinstance(content, dict) and content.get("format") == FORMAT
