"""Write masked images: resize, keep the kept patches only, compress if asked, count the bytes."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.classes import check_same_classes
from data_prep.images.image_set import ImageSet
from data_prep.images.pixels import network_input
from data_prep.images.prefetch import prefetch, usual_workers
from data_prep.images.reading import USUAL_READING, Reading, unusual_choices
from data_prep.masks.draw import draw_mask
from data_prep.patches.codec import pack
from data_prep.patches.cut import cut_patches
from data_prep.patches.meta import MaskedMeta, bytes_per_image
from data_prep.patches.settings import MaskSettings
from data_prep.progress import Advance
from flower_ist.files import new_file, new_folder
from flower_ist.tokens.shard import array_sha256

_HEADER_BYTES = 128
_SMALL_BYTES = 64
"""More than labels, ids, sizes and offsets take for an image."""


def write_masked(
    data: ImageSet,
    folder: Path,
    settings: MaskSettings,
    *,
    test: ImageSet | None = None,
    reading: Reading = USUAL_READING,
    workers: int | None = None,
    advance: Advance | None = None,
) -> list[MaskedMeta]:
    """Write the kept patches of some images to a new folder; see :mod:`data_prep.patches.meta`.

    Gray images keep their one channel. The same images and settings give the same bytes with any
    number of workers; a few images at a time are in memory.

    Args:
        data: Images that are not masked yet.
        folder: Must not exist; it appears when it is complete.
        settings: The mask and the sizes.
        test: Test images, if there are any; the two sets then go to ``train`` and ``test`` in it.
        reading: How unusual images were read.
        workers: Threads; None for as many as there are cores, up to 8.
        advance: Called with 1 after each image, for a progress bar.

    Returns:
        The meta data that were written, of each set.

    Raises:
        PrepError: the disk is too small, an image cannot be read, the images are masked already, or
            the sets have different classes.
        NotWrittenError: the folder exists or cannot be written.
    """
    sets = {"": data} if test is None else {"train": data, "test": test}
    if test is not None:
        check_same_classes(data.class_names, test.class_names, "the training", "the test images")
    with new_folder(folder) as temporary:
        _check_fit(temporary, list(sets.values()), settings)
        written = []
        for name, each in sets.items():
            place = temporary / name
            place.mkdir(exist_ok=True)
            written.append(_write(each, place, settings, reading, workers, advance))
    return written


def masked_summary(folder: Path, metas: Sequence[MaskedMeta]) -> str:
    """Return a sentence on masked images that were written."""
    native, files, kept = (
        sum(getattr(meta, name) for meta in metas)
        for name in ("image_bytes", "image_file_bytes", "masked_bytes")
    )
    mask = metas[0].mask
    return (
        f"{folder}: {sum(meta.num_images for meta in metas)} images, {mask.kept} of "
        f"{mask.patches} patches kept in {kept} bytes; the images take {native} bytes as pixels "
        f"and {files} as files."
    )


@dataclass(frozen=True)
class _Written:
    """What the file of patches holds: bytes (N,) and channels (N,) of each image, its hash."""

    lengths: NDArray[np.int64]
    channels: NDArray[np.uint8]
    plain: bool
    sha256: str


def _write(
    data: ImageSet,
    folder: Path,
    settings: MaskSettings,
    reading: Reading,
    workers: int | None,
    advance: Advance | None,
) -> MaskedMeta:
    patches = _write_patches(data, folder / "patches.npy", settings, workers, advance)
    same = bool((patches.channels == patches.channels[0]).all())
    ends = np.concatenate([[0], np.cumsum(patches.lengths)]).astype(np.int64)
    arrays: dict[str, NDArray[Any] | None] = {
        "offsets": None if patches.plain else ends,
        "channels": None if same else patches.channels,
        "labels": data.labels.astype(np.int32),
        "image_ids": data.image_ids.astype(np.int64),
        "native_bytes": data.native_bytes_of_each,
        "file_bytes": data.file_bytes,
        "owners": data.owners,
    }
    present = {name: array for name, array in arrays.items() if array is not None}
    for name, array in present.items():
        with new_file(folder / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
    hashes = {name: array_sha256(array) for name, array in present.items()}
    each = bytes_per_image(patches.lengths, present)
    native = data.native_bytes
    meta = MaskedMeta(
        num_images=len(data),
        class_names=data.class_names,
        mask=settings.mask,
        image_size=settings.image_size,
        patch_size=settings.patch_size,
        channels=int(patches.channels[0]) if same else 0,
        interpolation=settings.interpolation,
        compression=settings.compression,
        image_bytes=native,
        image_file_bytes=native if data.file_bytes is None else int(data.file_bytes.sum()),
        masked_bytes=int(each.sum()),
        split=data.split,
        source=data.source,
        sha256={"patches": patches.sha256, **hashes},
        reading=unusual_choices(reading),
    )
    meta.write(folder)
    return meta


def _write_patches(
    data: ImageSet, path: Path, settings: MaskSettings, workers: int | None, advance: Advance | None
) -> _Written:
    def pack_image(row: int) -> tuple[bytes, int]:
        patches = _patches(data, row, settings)
        return pack(patches, settings.compression), patches.shape[3]

    lengths = np.zeros(len(data), dtype=np.int64)
    channels = np.zeros(len(data), dtype=np.uint8)
    digest = hashlib.sha256()
    threads = usual_workers() if workers is None else workers
    packed = prefetch(pack_image, range(len(data)), threads)
    with new_file(path) as file, closing(packed):
        file.write(bytes(_HEADER_BYTES))
        for row, (blob, count) in enumerate(packed):
            lengths[row], channels[row] = len(blob), count
            digest.update(blob)
            file.write(blob)
            if advance is not None:
                advance(1)
        plain = not settings.compress and bool((channels == channels[0]).all())
        size = settings.patch_size
        each = (settings.mask.kept, size, size, int(channels[0]))
        # The shape is known only now; the header's place was kept free.
        file.seek(0)
        file.write(_npy_header((len(data), *each) if plain else (int(lengths.sum()),)))
    return _Written(lengths, channels, plain, digest.hexdigest())


def _patches(data: ImageSet, row: int, settings: MaskSettings) -> NDArray[np.uint8]:
    """Return the kept patches (k, P, P, C) of one image."""
    one = slice(row, row + 1)
    native = next(iter(data.images[one]))
    resized = network_input(native[None], settings.image_size, settings.interpolation)[0]
    # Gray comes back repeated.
    pixels = resized[: native.shape[2]].permute(1, 2, 0).numpy()
    kept = draw_mask(settings.mask, data.image_ids[one])[0]
    return cut_patches(pixels, kept, settings.patch_size)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    # numpy pads headers so that the first axis may grow: all of ours have the same length.
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    if len(header.getvalue()) != _HEADER_BYTES:
        raise PrepError(f"An array of shape {shape} cannot be stored: use smaller images.")
    return header.getvalue()


def _check_fit(folder: Path, sets: Sequence[ImageSet], settings: MaskSettings) -> None:
    """Refuse images that are masked already, and more than the disk holds.

    How small compression makes patches is not known before: only the rest counts then.
    """
    needed = 0
    for data in sets:
        if data.mask is not None:
            raise PrepError(f"{data.source} is masked already: give the images themselves.")
        patches = 0 if settings.compress else _patches(data, 0, settings).size
        needed += len(data) * (patches + _SMALL_BYTES)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PrepError(
            f"The masked images need {needed} bytes, but the disk has {free} bytes free."
        )
