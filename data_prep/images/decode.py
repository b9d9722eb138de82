"""Image files of any size, decoded with PIL only when they are needed."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data_prep import PrepError
from data_prep.images.convert import Facts, facts_of, to_pixels
from data_prep.images.reading import USUAL_READING, Reading
from flower_ist.errors import first_line, why_unreadable

_BLOCK_BYTES = 1 << 20
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class ImageFiles:
    """Reads image files; only their paths and checksums are in memory.

    Attributes:
        paths: N files.
        checksums: (N,) CRC-32 of each file's content, or None where they were not read.
        reading: What becomes of unusual ones.
    """

    paths: tuple[Path, ...]
    checksums: NDArray[np.int64] | None = None
    reading: Reading = USUAL_READING

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 1 or 3) of a file.

        Raises:
            PrepError: it cannot be read any more.
        """
        return decode_image(self.paths[index], self.paths[index], self.reading)

    def fingerprint(self, indices: NDArray[np.int64]) -> bytes:
        """Return the checksums of some files and their names below the folder of them all."""
        paths = [os.path.abspath(self.paths[index]) for index in indices]
        shared = os.path.commonpath([os.path.dirname(path) for path in paths])
        # Names may hold bytes that are no text.
        names = b"\0".join(os.fsencode(os.path.relpath(path, shared)) for path in paths)
        if self.checksums is None:
            return names
        return self.checksums[indices].astype("<i8").tobytes() + names


def decode_image(
    file: Path | BinaryIO, name: object, reading: Reading = USUAL_READING
) -> NDArray[np.uint8]:
    """Return the pixels (H, W, 1 or 3) of a file, or of its content; errors call it ``name``.

    Raises:
        PrepError: it is missing, damaged, no image, of a mode without a known range, or its values
            have more bits than ``reading`` says.
    """
    with _opened(file, name) as image:
        return to_pixels(image, name, reading)


def check_image(file: Path | BinaryIO, name: object, reading: Reading = USUAL_READING) -> Facts:
    """Return what an image measures and has; refuses what decoding would refuse.

    The whole file is decoded, but a JPEG at an eighth of its size: its data are read to the end
    and most of the arithmetic is saved.

    Raises:
        PrepError: as :func:`decode_image`.
    """
    with _opened(file, name) as image:
        return facts_of(image, name, reading)


def look_at_file(path: Path, reading: Reading = USUAL_READING) -> tuple[int, int, int, int, int]:
    """Return a file's :class:`Facts`, its own bytes and its content's CRC-32.

    Raises:
        PrepError: as :func:`decode_image`.
    """
    facts = check_image(path, path, reading)
    size = checksum = 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                size, checksum = size + len(block), zlib.crc32(block, checksum)
    except OSError as err:
        raise PrepError(f"{path} cannot be read as an image: {first_line(err)}.") from err
    return *facts, size, checksum


def is_image(file: Path) -> bool:
    """Return whether a file begins as an image does; the rest of it is not read."""
    try:
        with _opened(file, file):
            return True
    except PrepError:
        return False


@contextmanager
def _opened(file: Path | BinaryIO, name: object) -> Iterator[Image.Image]:
    try:
        with ExitStack() as opened:
            # Not by its name: PIL would map a plain TIFF into memory, and turn it wrongly.
            stream = opened.enter_context(file.open("rb")) if isinstance(file, Path) else file
            yield opened.enter_context(_open(stream, name))
    except PrepError:
        raise
    # On damaged files PIL's readers raise OSError, SyntaxError, IndexError and many others.
    except Exception as err:
        raise PrepError(f"{name} cannot be read as an image: {_reason(name, err)}.") from err


def _open(stream: BinaryIO, name: object) -> Image.Image:
    try:
        return Image.open(stream)
    except UnidentifiedImageError:
        stream.seek(0)
        head = stream.read(12)
        if head[4:8] != b"ftyp" or head[8:] not in _HEIC_BRANDS:
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise PrepError(
            f"{name} is a HEIC image, which needs pillow-heif: pip install pillow-heif."
        ) from None
    register_heif_opener()
    stream.seek(0)
    return Image.open(stream)


def _reason(name: object, err: Exception) -> str:
    if isinstance(err, UnidentifiedImageError):
        err = ValueError("its format is unknown")
    return why_unreadable(name, err)
