"""How an image that is not plain 8-bit RGB or gray becomes one, and what is said about it.

==============================  ================================================================
an image has                    and becomes
==============================  ================================================================
1 bit                           gray, 0 and 255
16-bit gray                     the upper 8 of ``bit_depth`` bits; by default of 16, or of as many
                                as its file states
16-bit color                    its upper 8 bits, which is all that PIL reads
a palette                       RGB
CMYK, YCbCr, Lab, HSV           RGB, without a color profile
transparency                    shown over white, or ignored: ``alpha``
a fourth band without meaning   its first three
several pictures                the first one
an EXIF orientation             not turned, as in torchvision's ``ImageFolder``, or turned:
                                ``orientation``; PIL turns a TIFF by itself
==============================  ================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import IntFlag, auto

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError

ALPHAS = ("white", "ignore")
ORIENTATIONS = ("stored", "exif")


@dataclass(frozen=True)
class Reading:
    """What becomes of the images that leave a choice.

    Attributes:
        bit_depth: Bits that 16-bit gray values use, 8 to 16; None for what the file states, or 16.
        alpha: ``white`` shows transparent pixels over white, ``ignore`` takes their colors.
        orientation: ``stored``, or ``exif`` to turn images as their cameras say.

    Raises:
        PrepError: a choice is unknown.
    """

    bit_depth: int | None = None
    alpha: str = "white"
    orientation: str = "stored"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("alpha", self.alpha, ALPHAS),
            ("orientation", self.orientation, ORIENTATIONS),
        ):
            if value not in known:
                raise PrepError(f"--{name} must be {' or '.join(known)}, not {value!r}.")
        if self.bit_depth is not None and not 8 <= self.bit_depth <= 16:
            raise PrepError(f"--bit-depth must be 8 to 16, not {self.bit_depth}.")


USUAL_READING = Reading()
"""What becomes of images where no choice is made."""


def reading_of(choices: Mapping[str, int | str]) -> Reading:
    """Return the reading of some :func:`unusual_choices`, as shards and models record them.

    Raises:
        PrepError: one is unknown.
    """
    try:
        return Reading(**{name.replace("-", "_"): value for name, value in choices.items()})  # type: ignore[arg-type]
    except TypeError:
        raise PrepError(
            f"Images were read with {', '.join(choices)}, which this release does not know: use "
            "the one that wrote the shard."
        ) from None


def unusual_choices(reading: Reading) -> dict[str, int | str]:
    """Return the choices that differ from the usual ones, by the names of their options."""
    return {
        name.replace("_", "-"): value
        for name, value in asdict(reading).items()
        if value != getattr(USUAL_READING, name)
    }


class Trait(IntFlag):
    """What an image has beyond plain 8-bit RGB or gray."""

    ONE_BIT = auto()
    DEEP_GRAY = auto()
    STATED_DEPTH = auto()
    DEEP_COLOR = auto()
    PALETTE = auto()
    COLOR_MODEL = auto()
    ALPHA = auto()
    EXTRA_BAND = auto()
    SEVERAL = auto()
    TURNED = auto()
    NOT_TURNED = auto()


@dataclass(frozen=True)
class Unusual:
    """What was done to some images of a set.

    Attributes:
        split: ``train`` or ``test``.
        what: What they have and what becomes of it, in words.
        images: How many they are.
        example: The first of them.
        remedy: The option to choose otherwise, in words, or empty.
    """

    split: str
    what: str
    images: int
    example: str
    remedy: str = ""

    def sentence(self) -> str:
        """Return it in one sentence."""
        remedy = f" ({self.remedy})" if self.remedy else ""
        who = f"{self.images} {self.split} image{'s' * (self.images != 1)}"
        return f"{who} with {self.what}, such as {self.example}{remedy}."


def find_unusual(
    traits: NDArray[np.int64],
    largest: NDArray[np.int64],
    name: Callable[[int], object],
    split: str,
    reading: Reading,
) -> tuple[Unusual, ...]:
    """Count what the images of a set have, one entry for each trait that occurs.

    Args:
        traits: (N,) of each image, as :class:`Trait`.
        largest: (N,) the largest 16-bit value of each image, or 0.
        name: Names an image by its row.
        split: ``train`` or ``test``.
        reading: What was done to them.
    """
    found = []
    for trait in Trait:
        rows = np.flatnonzero(traits & trait)
        if len(rows):
            what, remedy = _words(trait, int(largest[rows].max()), reading)
            found.append(Unusual(split, what, len(rows), str(name(int(rows[0]))), remedy))
    return tuple(found)


def _words(trait: Trait, largest: int, reading: Reading) -> tuple[str, str]:
    """Return what becomes of a trait, and how to choose otherwise."""
    if trait is Trait.DEEP_GRAY and reading.bit_depth is None:
        bits = max(8, largest.bit_length())
        what = f"16-bit gray values, at most {largest}: the upper 8 of 16 bits are taken"
        return what, f"--bit-depth {bits} if they use {bits} bits" if bits < 16 else ""
    if trait is Trait.ALPHA and reading.alpha == "ignore":
        return "an alpha channel or a transparent color: ignored", ""
    dark = "; too dark? store them with 8 bits" if largest < 128 else ""
    return {
        Trait.ONE_BIT: ("1 bit a pixel: read as 0 and 255", ""),
        Trait.DEEP_GRAY: (f"16-bit gray values: the upper 8 of {reading.bit_depth} bits", ""),
        Trait.STATED_DEPTH: ("12-bit gray values: the upper 8 bits are taken", ""),
        Trait.DEEP_COLOR: (f"16-bit colors: the upper 8 bits, at most {largest}{dark}", ""),
        Trait.PALETTE: ("a palette: read as its colors", ""),
        Trait.COLOR_MODEL: ("colors other than RGB: converted without a color profile", ""),
        Trait.ALPHA: (
            "an alpha channel or a transparent color: shown over white",
            "--alpha ignore takes their colors alone",
        ),
        Trait.EXTRA_BAND: ("a fourth band without a meaning: left out", ""),
        Trait.SEVERAL: ("several pictures in one file: the first is taken", ""),
        Trait.TURNED: ("an EXIF orientation: turned as it says", ""),
        Trait.NOT_TURNED: (
            "an EXIF orientation: read as stored, not turned",
            "--orientation exif turns them",
        ),
    }[trait]
