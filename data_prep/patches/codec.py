"""How an image's kept patches become bytes: plain, or losslessly compressed.

Compressed patches are one lossless WebP of their mosaic. On natural images (RESISC45 at 224 pixels
and CIFAR-10 at 32, half the patches kept) it took 17 to 34 % fewer bytes than PNG; patches laid in
a square and in a strip came out alike. WebP's effort 50 of 100 took half the time of 100 for the
same bytes.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from data_prep.patches.cut import Pixels, lay_mosaic, lift_mosaic

COMPRESSIONS = ("none", "webp")


def pack(patches: Pixels, compression: str) -> bytes:
    """Return patches (k, P, P, C) as bytes, C = 1 or 3."""
    if compression == "none":
        return patches.tobytes()
    picture = lay_mosaic(patches)
    blob = io.BytesIO()
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    image.save(blob, format="WEBP", lossless=True, quality=50, method=4)
    return blob.getvalue()


def unpack(blob: bytes, shape: tuple[int, int, int, int], compression: str) -> Pixels:
    """Return the patches of ``shape`` (k, P, P, C) that :func:`pack` made these bytes of.

    Raises:
        ValueError: the bytes are damaged or of patches of another shape.
    """
    if compression == "none":
        return np.frombuffer(blob, dtype=np.uint8).reshape(shape)
    try:
        with Image.open(io.BytesIO(blob), formats=("WEBP",)) as image:
            # WebP knows no gray: it comes back as three equal channels.
            picture = np.asarray(image.convert("RGB"))[..., : shape[3]]
    except (OSError, SyntaxError) as err:
        raise ValueError(f"they are no WebP picture ({err})") from err
    return lift_mosaic(picture, shape[0], shape[1])
