"""An opened image -> plain 8-bit RGB or gray pixels, and what it had beyond them.

Modes without a known range, such as 32-bit numbers, are refused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data_prep import PrepError
from data_prep.images.reading import USUAL_READING, Reading, Trait

_GRAY = ("1", "L", "LA", "La")
_DEEP_GRAY = ("I;16", "I;16L", "I;16B", "I;16N")
_COLOR = ("RGB", "RGBX", "RGBA", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_ALPHA = ("LA", "La", "RGBA", "RGBa", "PA")
_TRAIT_OF_MODE = {
    "1": Trait.ONE_BIT,
    "RGBX": Trait.EXTRA_BAND,
    **dict.fromkeys(("P", "PA"), Trait.PALETTE),
    **dict.fromkeys(("CMYK", "YCbCr", "LAB", "HSV"), Trait.COLOR_MODEL),
}
_ORIENTATION_TAG = 0x112


class Facts(NamedTuple):
    """What the check of an image found.

    Attributes:
        native_bytes: Height x width x channels as stored, in bytes. A palette's index and a gray
            value are 1 channel, transparency is 1 more; 16-bit grays and colors count 2 a channel.
        traits: What it has beyond plain 8-bit RGB or gray, as :class:`Trait`.
        largest: The largest of its 16-bit gray values, or of the upper bytes of its 16-bit colors;
            0 where it has none.
    """

    native_bytes: int
    traits: int
    largest: int


def facts_of(image: Image.Image, name: object, reading: Reading) -> Facts:
    """Return what an opened image measures and has; refuses what :func:`to_pixels` would refuse.

    The whole file is decoded, but a JPEG at an eighth of its size: its data are read to the end
    and most of the arithmetic is saved.

    Raises:
        PrepError: as :func:`to_pixels`; PIL's readers raise many other errors on damaged files.
    """
    # First, as looking for an orientation may decode the image.
    deep, stated = _is_deep_color(image), _stated_depth(image)
    if deep:
        _refuse_other_depth(name, reading)
    size, traits = image.size, _stored_traits(image, reading)
    drafted = image.draft(None, (1, 1)) is not None
    image.load()
    _check_mode(image, name)
    traits |= _mode_traits(image)
    count, largest = _bytes_of(size if drafted else image.size, image), 0
    if image.mode in _DEEP_GRAY:
        largest = int(_deep_values(image, name, reading.bit_depth).max())
        is_stated = stated is not None and reading.bit_depth is None
        traits |= Trait.STATED_DEPTH if is_stated else Trait.DEEP_GRAY
    elif deep:
        count, traits = 2 * count, traits | Trait.DEEP_COLOR
        largest = max(int(np.asarray(band).max()) for band in image.split()[:3])
    return Facts(count, int(traits), largest)


def to_pixels(
    image: Image.Image, name: object, reading: Reading = USUAL_READING
) -> NDArray[np.uint8]:
    """Return an image's pixels (H, W, 1 or 3) uint8; errors call it ``name``.

    Raises:
        PrepError: its mode has no known range, or its values have more bits than ``reading`` says.
    """
    depth = reading.bit_depth or _stated_depth(image) or 16
    if _is_deep_color(image):
        _refuse_other_depth(name, reading)
    # Some readers know the mode only after decoding.
    image.load()
    _check_mode(image, name)
    if reading.orientation == "exif":
        image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP_GRAY:
        # PIL's own conversion cuts off everything above 255.
        return (_deep_values(image, name, depth) >> (depth - 8)).astype(np.uint8)[..., None]
    if _is_transparent(image) and reading.alpha == "white":
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return np.asarray(Image.alpha_composite(white, shown).convert("RGB"))
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())  # colors are stored multiplied by their alpha
    if image.mode in _GRAY:
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


def _stored_traits(image: Image.Image, reading: Reading) -> Trait:
    """Return what shows only before an image is decoded."""
    traits = Trait(0)
    if getattr(image, "is_animated", False):
        traits |= Trait.SEVERAL
    if image.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9):
        # PIL turns a TIFF while it decodes.
        turned = reading.orientation == "exif" or image.format == "TIFF"
        traits |= Trait.TURNED if turned else Trait.NOT_TURNED
    return traits


def _mode_traits(image: Image.Image) -> Trait:
    traits = _TRAIT_OF_MODE.get(image.mode, Trait(0))
    return traits | Trait.ALPHA if _is_transparent(image) else traits


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in _ALPHA or (image.mode not in _DEEP_GRAY and "transparency" in image.info)


def _is_deep_color(image: Image.Image) -> bool:
    """Return whether colors, or gray with alpha, are stored with 16 bits, of which PIL reads 8."""
    return image.mode not in _DEEP_GRAY and ";16" in _raw_mode(image)


def _stated_depth(image: Image.Image) -> int | None:
    """Return the bits of 16-bit gray values that a file states, where it does: a TIFF may."""
    return 12 if ";12" in _raw_mode(image) else None


def _raw_mode(image: Image.Image) -> str:
    """Return how an undecoded image's values are stored, as PIL names it; empty once decoded."""
    return " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))


def _deep_values(image: Image.Image, name: object, depth: int | None) -> NDArray[np.uint16]:
    values = np.asarray(image).astype(np.uint16)
    if depth is not None and (largest := int(values.max())) >> depth:
        raise PrepError(
            f"{name} holds the value {largest}, which {depth} bits cannot hold: give a larger "
            "--bit-depth, the same for all images."
        )
    return values


def _refuse_other_depth(name: object, reading: Reading) -> None:
    if reading.bit_depth not in (None, 16):
        raise PrepError(
            f"{name} has colors of 16 bits, of which only the upper 8 can be read: store it with 8 "
            "bits, or leave --bit-depth out."
        )


def _bytes_of(size: tuple[int, int], image: Image.Image) -> int:
    return size[0] * size[1] * (2 if image.mode in _DEEP_GRAY else len(image.getbands()))


def _check_mode(image: Image.Image, name: object) -> None:
    if image.mode not in _GRAY + _DEEP_GRAY + _COLOR:
        raise PrepError(f"{name} has pixels of mode {image.mode}: store it with 8 bits.")
