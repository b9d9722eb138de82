"""Image files of any size, decoded with PIL only when they are needed.

What a file's mode becomes:

* 1, L and 16-bit gray: one channel of 8 bits (of 16 bits the upper 8 are taken);
* RGB, palettes, CMYK, YCbCr: RGB;
* anything with transparency, be it an alpha channel or a transparent color: RGB over white;
* modes without a known range, such as 32-bit numbers, are refused.

Of an animation the first picture is taken. A rotation in the EXIF data is not applied, as in
torchvision's ``ImageFolder``.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data_prep import PrepError
from data_prep.errors import first_line

_GRAY = ("1", "L", "LA", "La")
_DEEP_GRAY = ("I;16", "I;16L", "I;16B", "I;16N")
_COLOR = ("RGB", "RGBX", "RGBA", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_ALPHA = ("LA", "La", "RGBA", "RGBa", "PA")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class ImageFiles:
    """Reads image files; only their paths and checksums are in memory.

    Attributes:
        paths: N files.
        checksums: (N,) CRC-32 of each file's content, or None where they were not read.
    """

    paths: tuple[Path, ...]
    checksums: NDArray[np.int64] | None = None

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 1 or 3) of a file.

        Raises:
            PrepError: it cannot be read any more.
        """
        return decode_image(self.paths[index], self.paths[index])

    def fingerprint(self, indices: NDArray[np.int64]) -> bytes:
        """Return the checksums of some files and their names below the folder of them all."""
        paths = [os.path.abspath(self.paths[index]) for index in indices]
        shared = os.path.commonpath([os.path.dirname(path) for path in paths])
        # Names may hold bytes that are no text.
        names = b"\0".join(os.fsencode(os.path.relpath(path, shared)) for path in paths)
        if self.checksums is None:
            return names
        return self.checksums[indices].astype("<i8").tobytes() + names


def decode_image(file: Path | BinaryIO, name: object) -> NDArray[np.uint8]:
    """Return the pixels (H, W, 1 or 3) of a file, or of its content; errors call it ``name``.

    Raises:
        PrepError: it is missing, damaged, no image, or of a mode without a known range.
    """
    with _opened(file, name) as image:
        return to_pixels(image, name)


def check_image(file: Path | BinaryIO, name: object) -> int:
    """Return what :func:`native_bytes` of a file would be; refuses what decoding would refuse.

    The whole file is decoded, but a JPEG at an eighth of its size: its data are read to the end
    and most of the arithmetic is saved.

    Raises:
        PrepError: as :func:`decode_image`.
    """
    with _opened(file, name) as image:
        size = image.size
        drafted = image.draft(None, (1, 1)) is not None
        image.load()
        _check_mode(image, name)
        return _bytes_of(size if drafted else image.size, image)


def look_at_file(path: Path) -> tuple[int, int, int]:
    """Return a file's :func:`native_bytes`, its own bytes and its content's CRC-32.

    Raises:
        PrepError: as :func:`decode_image`.
    """
    native = check_image(path, path)
    size = checksum = 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                size, checksum = size + len(block), zlib.crc32(block, checksum)
    except OSError as err:
        raise PrepError(f"{path} cannot be read as an image: {first_line(err)}.") from err
    return native, size, checksum


def is_image(file: Path) -> bool:
    """Return whether a file begins as an image does; the rest of it is not read."""
    try:
        with _opened(file, file):
            return True
    except PrepError:
        return False


def native_bytes(image: Image.Image) -> int:
    """Return height x width x channels as stored, in bytes.

    A palette's index and a gray value are 1 channel, transparency is 1 more, and a 16-bit gray
    value counts 2.
    """
    return _bytes_of(image.size, image)


def to_pixels(image: Image.Image, name: object) -> NDArray[np.uint8]:
    """Return an image's pixels (H, W, 1 or 3) uint8; errors call it ``name``.

    Raises:
        PrepError: its mode has no known range.
    """
    # Some readers know the mode only after decoding.
    image.load()
    _check_mode(image, name)
    if image.mode in _DEEP_GRAY:
        # PIL's own conversion cuts off everything above 255.
        return (np.asarray(image) >> 8).astype(np.uint8)[..., None]
    if image.mode in _ALPHA or "transparency" in image.info:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return np.asarray(Image.alpha_composite(white, shown).convert("RGB"))
    if image.mode in _GRAY:
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


def _bytes_of(size: tuple[int, int], image: Image.Image) -> int:
    return size[0] * size[1] * (2 if image.mode in _DEEP_GRAY else len(image.getbands()))


def _check_mode(image: Image.Image, name: object) -> None:
    if image.mode not in _GRAY + _DEEP_GRAY + _COLOR:
        raise PrepError(f"{name} has pixels of mode {image.mode}: store it with 8 bits.")


@contextmanager
def _opened(file: Path | BinaryIO, name: object) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except PrepError:
        raise
    # On damaged files PIL's readers raise OSError, SyntaxError, IndexError and many others.
    except Exception as err:
        raise PrepError(f"{name} cannot be read as an image: {_reason(err)}.") from err


def _reason(err: Exception) -> str:
    return "its format is unknown" if isinstance(err, UnidentifiedImageError) else first_line(err)
