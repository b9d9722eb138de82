"""Masked images as a source: the kept patches of resized images, read back as whole images.

A device too weak to run an encoder stores or sends these (the second product of Kariotakis et al.,
CPAL 2024), and a gateway encodes them. The mask follows from seed and image id, so no byte is spent
on which patches were kept. An encoder that reads kept patches only makes the same tokens of them as
of the images themselves. :mod:`data_prep.patches.write` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.images.stored import StoredImages
from data_prep.masks.draw import draw_mask
from data_prep.patches.codec import unpack
from data_prep.patches.cut import place_patches
from data_prep.patches.meta import MaskedMeta, bytes_per_image, has_meta, read_meta
from flower_ist.differences import differences
from flower_ist.errors import why_unreadable
from flower_ist.tokens.meta import Mask
from flower_ist.tokens.shard import array_sha256


@dataclass(frozen=True)
class MaskedImages:
    """Reads stored patches of M images as whole images, zero under dropped patches.

    Attributes:
        folder: Where they lie, for errors.
        meta: How they were made.
        patches: Memory map, see :mod:`data_prep.patches.meta`.
        offsets: (M + 1,) where images end, or None where all take the same bytes.
        channels: (M,) 1 or 3, or None where all have the same.
        image_ids: (M,) what the masks are drawn from.
    """

    folder: Path
    meta: MaskedMeta
    patches: NDArray[np.uint8]
    offsets: NDArray[np.int64] | None
    channels: NDArray[np.uint8] | None
    image_ids: NDArray[np.int64]

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return an image (S, S, 1 or 3) of the stored image size.

        Raises:
            PrepError: its patches are damaged.
        """
        kept = draw_mask(self.meta.mask, self.image_ids[index : index + 1])[0]
        return place_patches(self._patches(index), kept, self.meta.image_size)

    def fingerprint(self, indices: NDArray[np.int64]) -> bytes:
        """Return the hash of all patches, which was compared when the images were opened."""
        return self.meta.sha256["patches"].encode()

    def _patches(self, index: int) -> NDArray[np.uint8]:
        if self.offsets is None:
            stored: NDArray[np.uint8] = self.patches[index]
            return stored
        channels = self.meta.channels if self.channels is None else int(self.channels[index])
        size = self.meta.patch_size
        blob = self.patches[self.offsets[index] : self.offsets[index + 1]].tobytes()
        try:
            return unpack(blob, (self.meta.mask.kept, size, size, channels), self.meta.compression)
        except ValueError as err:
            raise PrepError(
                f"The patches of image {index} in {self.folder} are damaged: {err}."
            ) from err


class MaskedSource:
    """A folder that ``flower-ist mask`` wrote: one set, or ``train`` and ``test``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def has_test(self) -> bool:
        """Whether both ``train`` and ``test`` are there."""
        return has_meta(self._folder / "train") and has_meta(self._folder / "test")

    def read(self, split: str) -> ImageSet:
        """Read as :func:`read_masked` does."""
        return read_masked(self._folder, split)


def is_masked(folder: Path) -> bool:
    """Return whether a folder, or the folder ``train`` or ``test`` in it, holds masked images."""
    return any(has_meta(place) for place in (folder, folder / "train", folder / "test"))


def stored_meta(source: str | Path) -> MaskedMeta | None:
    """Return the meta data of training images that were masked already, None for other sources.

    Raises:
        PrepError: the meta data are damaged.
    """
    places = (Path(source), Path(source) / "train")
    return next((read_meta(place) for place in places if has_meta(place)), None)


def read_masked(folder: Path, split: str = "train") -> ImageSet:
    """Open masked images; their patches stay in the file until they are decoded.

    Dtypes, shapes and file sizes are checked; every byte is read once and must match its hash.

    Args:
        folder: Holds ``meta.json``, or ``train`` and ``test`` that do; ``split`` then chooses.
        split: ``train`` or ``test``.

    Raises:
        PrepError: the folder is incomplete, damaged, or of another version.
    """
    if not has_meta(folder) and has_meta(folder / split):
        folder = folder / split
    meta = read_meta(folder)
    arrays = {name: _open(folder, name) for name in meta.sha256}
    if wrong := _misshapen(meta, arrays):
        raise PrepError(f"{folder} is damaged: the array {wrong} does not fit its meta data.")
    if changed := [n for n, a in arrays.items() if meta.sha256[n] != array_sha256(a)]:
        raise PrepError(f"{folder} is damaged: the array {changed[0]} does not match its hash.")
    # All but the patches are small: a few numbers per image.
    small = {name: np.array(array) for name, array in arrays.items() if name != "patches"}
    if "offsets" in small:
        lengths = np.diff(small["offsets"])
    else:
        lengths = np.full(meta.num_images, arrays["patches"][0].size, dtype=np.int64)
    images = MaskedImages(
        folder,
        meta,
        arrays["patches"],
        small.get("offsets"),
        small.get("channels"),
        small["image_ids"],
    )
    return ImageSet(
        images=StoredImages(images, np.arange(meta.num_images), small["native_bytes"]),
        labels=small["labels"].astype(np.int64),
        image_ids=small["image_ids"],
        class_names=meta.class_names,
        source=meta.source,
        split=meta.split,
        file_bytes=small.get("file_bytes"),
        owners=small.get("owners"),
        mask=meta.mask,
        masked_bytes=bytes_per_image(lengths, arrays),
    )


def check_mask_fits(data: ImageSet, mask: Mask, image_size: int, patch_size: int) -> None:
    """Refuse to encode masked images under another mask or size than theirs; others pass.

    Raises:
        PrepError: kind, ratio, seed, views, image size or patch size differ.
    """
    images = data.images
    if not isinstance(images, StoredImages) or not isinstance(images.reader, MaskedImages):
        return
    meta = images.reader.meta
    sizes = {"image size": meta.image_size, "patch size": meta.patch_size}
    stored = {**sizes, **vars(meta.mask)}
    asked = {"image size": image_size, "patch size": patch_size, **vars(mask)}
    # Patches and kept ones follow from the others.
    if differ := differences(stored, asked, leave_out=frozenset({"patches", "kept"})):
        raise PrepError(
            f"{data.source} was masked otherwise ({differ}): ask for the same, or mask the images "
            "again."
        )


def _open(folder: Path, name: str) -> NDArray[Any]:
    path = folder / f"{name}.npy"
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        if path.stat().st_size != array.offset + array.nbytes:
            raise ValueError("it has bytes after its array")
    except FileNotFoundError:
        raise PrepError(f"{path} is missing: the folder is incomplete.") from None
    except (OSError, ValueError, EOFError, OverflowError) as err:
        raise PrepError(
            f"{path} is truncated or not a plain .npy file: {why_unreadable(path, err)}."
        ) from err
    return array


def _misshapen(meta: MaskedMeta, arrays: dict[str, NDArray[Any]]) -> str | None:
    """Return the name of an array that cannot be what the meta data say, if any."""
    count, size, patches = meta.num_images, meta.patch_size, arrays["patches"]
    kinds = {"offsets": "i8", "channels": "u1", "labels": "i4", "patches": "u1", "owners": "U"}
    for name, array in arrays.items():
        kind = kinds.get(name, "i8")
        if array.dtype.kind != kind[0] or (kind != "U" and array.dtype.itemsize != int(kind[1])):
            return name
        if name != "patches" and array.shape != (count + (name == "offsets"),):
            return name
    labels = arrays["labels"]
    if labels.min() < 0 or labels.max() >= len(meta.class_names):
        return "labels"
    if arrays["image_ids"].min() < 0:
        return "image_ids"
    if (meta.channels == 0) != ("channels" in arrays):
        return "channels"
    if "channels" in arrays and not np.isin(arrays["channels"], (1, 3)).all():
        return "channels"
    if "offsets" not in arrays:
        plain = (count, meta.mask.kept, size, size, meta.channels)
        return None if patches.shape == plain and meta.compression == "none" else "patches"
    ends = arrays["offsets"]
    whole = patches.ndim == 1 and ends[0] == 0 and ends[-1] == len(patches)
    return None if whole and (np.diff(ends) > 0).all() else "offsets"
