"""Image files of any size, decoded with PIL only when they are needed.

What a file's mode becomes:

* 1, L and 16-bit grey: one channel of 8 bits (of 16 bits the upper 8 are taken);
* RGB, palettes, CMYK, YCbCr: RGB;
* anything with transparency, be it an alpha channel or a transparent colour: RGB over white;
* modes without a known range, such as 32-bit numbers, are refused.

Of an animation the first picture is taken. A rotation in the EXIF data is not applied, as in
torchvision's ``ImageFolder``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data_prep import PrepError

_GREY = ("1", "L", "LA", "La")
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_COLOUR = ("RGB", "RGBX", "RGBA", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_ALPHA = ("LA", "La", "RGBA", "RGBa", "PA")


@dataclass(frozen=True)
class ImageFile:
    """One decoded file.

    Attributes:
        pixels: (H, W, C) uint8, C = 1 or 3.
        native_bytes: Height x width x channels as stored, in bytes: a palette's index and a grey
            value are 1 channel, transparency is 1 more, and a 16-bit grey value counts 2.
        file_bytes: Size on disk, in bytes.
    """

    pixels: NDArray[np.uint8]
    native_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class ImageFiles:
    """Files in place of their pixels: only the paths and the bytes per file are in memory.

    Attributes:
        paths: N files.
        native_bytes: (N,) bytes of each image as decoded, see :class:`ImageFile`.
    """

    paths: tuple[Path, ...]
    native_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)

    def take(self, rows: NDArray[np.intp]) -> ImageFiles:
        """Return some files, in that order."""
        return ImageFiles(tuple(self.paths[row] for row in rows), self.native_bytes[rows])

    def decode(self, rows: slice | NDArray[np.intp]) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels (H, W, 1 or 3) of some files, one at a time.

        Raises:
            PrepError: a file cannot be read any more.
        """
        for row in np.arange(len(self.paths))[rows]:
            yield read_image(self.paths[row]).pixels


def read_image(path: Path) -> ImageFile:
    """Decode one image file completely.

    Raises:
        PrepError: the file is missing, damaged, no image, or of a mode without a known range.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode not in _GREY + _DEEP_GREY + _COLOUR:
                raise PrepError(f"{path} has pixels of mode {image.mode}: store it with 8 bits.")
            pixels = _to_pixels(image)
            width, height = image.size
            file_bytes = path.stat().st_size
            channels = 2 if image.mode in _DEEP_GREY else len(image.getbands())
    except PrepError:
        raise
    # On damaged files PIL's readers raise OSError, SyntaxError, IndexError and many others.
    except Exception as err:
        reason = _reason(err)
        raise PrepError(f"{path} cannot be read as an image: {reason}.") from err
    return ImageFile(pixels, height * width * channels, file_bytes)


def _to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in _DEEP_GREY:
        # PIL's own conversion cuts off everything above 255.
        return (np.asarray(image) >> 8).astype(np.uint8)[..., None]
    if image.mode in _ALPHA or "transparency" in image.info:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return np.asarray(Image.alpha_composite(white, shown).convert("RGB"))
    if image.mode in _GREY:
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


def _reason(err: Exception) -> str:
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    if isinstance(err, UnidentifiedImageError):
        return "its format is unknown"
    return (str(err).strip() or type(err).__name__).splitlines()[0].rstrip(".")
