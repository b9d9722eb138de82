import numpy as np

from data_prep.patches.codec import pack, unpack
from data_prep.patches.cut import cut_patches, lay_mosaic, place_patches


def test_compression_is_smaller_on_smooth_pictures_and_exact_on_any():
    slope = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[..., None].repeat(3, axis=2)
    patches = cut_patches(slope, np.arange(0, 64, 3), 8)
    blob = pack(patches, "webp")
    assert len(blob) < patches.size / 4
    np.testing.assert_array_equal(unpack(blob, patches.shape, "webp"), patches)


def test_a_mosaic_is_as_square_as_can_be():
    """5 patches: 3 columns, 2 rows, the sixth cell black; the fourth patch begins row two."""
    patches = np.arange(1, 6, dtype=np.uint8).repeat(4).reshape(5, 2, 2, 1)
    assert lay_mosaic(patches)[::2, ::2, 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert place_patches(patches[:1], np.array([2]), 4)[..., 0].tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
    ]
