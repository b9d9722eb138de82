"""Images to mask, and the patches that a mask keeps of them."""

import numpy as np
from PIL import Image

from data_prep.images.image_set import ImageSet
from data_prep.masks.draw import kept_patches
from data_prep.patches.settings import MaskSettings
from data_prep.sources.open import read_source

SETTINGS = MaskSettings(image_size=16, patch_size=4, ratio=0.5, seed=3)


def images(count=5, shape=(20, 12, 3), seed=0, **changes):
    rng = np.random.default_rng(seed)
    options = {
        "images": rng.integers(0, 256, (count, *shape)).astype(np.uint8),
        "labels": np.arange(count) % 2,
        "image_ids": np.arange(count) * 7 + 2,
        "class_names": ("a", "b"),
        "source": "camera",
    }
    return ImageSet(**(options | changes))


def folder_of_both_kinds(root):
    """Two gray and one colored picture of different sizes."""
    rng = np.random.default_rng(1)
    (root / "a").mkdir(parents=True)
    for k, shape in enumerate(((9, 7), (20, 20, 3), (16, 16))):
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(root / "a" / f"{k}.png")
    return read_source(root)


def kept_of(data, settings):
    side = settings.image_size // settings.patch_size
    return kept_patches(
        settings.kind, (side, side), settings.ratio, seed=settings.seed, image_ids=data.image_ids
    )
