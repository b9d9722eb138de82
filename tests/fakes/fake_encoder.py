"""An encoder without weights, and a set of images whose tokens can be told from each other."""

import numpy as np

from data_prep.images.image_set import ImageSet
from flower_ist.tokens.meta import Encoder


class FakeEncoder:
    """Returns the kept patches' mean pixel and the first and last kept patch, (B, 3)."""

    def __init__(self, side=3, size=12):
        self.grid, self.dim = (side, side), 3
        self.record = Encoder("fake", "00", image_size=size, patch_size=size // side)
        self.calls = []

    def encode(self, pixels, kept):
        self.calls.append(len(pixels))
        side, patch = self.grid[0], self.record.patch_size
        blocks = pixels.numpy()[:, 0].reshape(-1, side, patch, side, patch).mean(axis=(2, 4))
        means = np.take_along_axis(blocks.reshape(len(blocks), -1), kept, axis=1).mean(axis=1)
        return np.stack([means, kept[:, 0], kept[:, -1]], axis=1).astype(np.float32)


def image_set(count, classes=3, size=6, first_id=100):
    rng = np.random.default_rng(count)
    return ImageSet(
        images=rng.integers(0, 256, (count, size, size, 1)).astype(np.uint8),
        labels=np.arange(count) % classes,
        image_ids=first_id + np.arange(count),
        class_names=tuple(f"class {c}" for c in range(classes)),
        source="numbers",
    )
