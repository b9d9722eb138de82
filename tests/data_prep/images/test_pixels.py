import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import PrepError
from data_prep.images.pixels import masked_bytes, masked_pixels, network_input


def test_gray_becomes_three_equal_channels_and_keeps_its_values():
    pixels = network_input(np.array([0, 255, 51, 102], np.uint8).reshape(1, 2, 2, 1), 2)
    assert (pixels.shape, pixels.dtype) == ((1, 3, 2, 2), torch.uint8)
    assert pixels[0].tolist() == [[[0, 255], [51, 102]]] * 3


def test_resized_pixels_are_rounded_to_the_nearest_whole_number():
    """Halving with antialiasing, bilinear: weights 3, 3, 1 and 1, 3, 3 of 7 on 0, 0, 1, 200.

    (0 + 0 + 1) / 7 = .14 rounds to 0; (0 + 3 + 600) / 7 = 86.14 rounds to 86.
    """
    column = np.array([0, 0, 1, 200], np.uint8).reshape(1, 4, 1, 1)
    pixels = network_input(column.repeat(4, axis=2), 2, "bilinear")
    assert pixels[0, 0].tolist() == [[0, 0], [86, 86]]
    brighter = network_input(column.repeat(4, axis=2) + np.uint8(4), 2, "bilinear")
    assert brighter[0, 0].tolist() == [[4, 4], [90, 90]]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [6, 32])
def test_resizing_keeps_channels_range_and_flat_areas(interpolation, size):
    images = np.zeros((2, 20, 12, 3), np.uint8)
    images[..., 1] = 255
    images[1, :10] = 255
    pixels = network_input(images, size, interpolation)
    assert (pixels.shape, pixels.dtype) == ((2, 3, size, size), torch.uint8)
    # Bicubic overshoot beyond 255 or below 0 would wrap around.
    assert pixels[1, :, 0].min() == 255
    assert pixels[1, 0, -1].max() == 0
    for channel, value in enumerate((0, 255, 0)):
        assert pixels[0, channel].unique().tolist() == [value]


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(PrepError, match="'nearest' is unknown: use bicubic or bilinear"):
        network_input(np.zeros((1, 4, 4, 1), np.uint8), 8, "nearest")


def test_pixels_under_dropped_patches_become_zero():
    """4 x 4 pixels in 2 x 2 patches; keeping patches 0 and 3 leaves two corner blocks."""
    images = np.full((1, 4, 4, 1), 9, np.uint8)
    shown = masked_pixels(images, (2, 2), np.array([[0, 3]]))[0, :, :, 0]
    assert shown.tolist() == [[9, 9, 0, 0], [9, 9, 0, 0], [0, 0, 9, 9], [0, 0, 9, 9]]


def test_a_pixel_belongs_to_the_patch_under_its_center():
    """5 pixels under 2 patches: centers .5 1.5 2.5 3.5 4.5, the border is 2.5."""
    images = np.ones((1, 1, 5, 1), np.uint8)
    assert masked_pixels(images, (1, 2), np.array([[0]])).ravel().tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("native", "patches", "kept", "images", "expected"),
    [
        (28 * 28, 196, 98, 1000, 98 * 4 * 1000),
        (28 * 28, 49, 24, 1, 24 * 16),
        (32 * 32 * 3, 64, 32, 2, 32 * 48 * 2),
        # 7.84 bytes a patch: 3 x 7.84 = 23.52, rounded up once.
        (28 * 28, 100, 3, 1, 24),
        (28 * 28, 100, 3, 100, 2352),
    ],
)
def test_bytes_of_kept_patches(native, patches, kept, images, expected):
    assert masked_bytes(native * images, patches, kept) == expected


@settings(deadline=None)
@given(side=st.integers(1, 6), pixels=st.integers(1, 5), data=st.data())
def test_where_patches_are_whole_pixels_the_bytes_are_those_left_in_the_image(side, pixels, data):
    kept = data.draw(st.sets(st.integers(0, side * side - 1), min_size=1))
    images = np.ones((1, side * pixels, side * pixels, 3), np.uint8)
    shown = masked_pixels(images, (side, side), np.array([sorted(kept)]))
    assert shown.sum() == masked_bytes(images[0].size, side * side, len(kept))
