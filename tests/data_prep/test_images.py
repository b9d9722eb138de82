import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_prep import PrepError
from data_prep.images import ImageSet, masked_bytes, masked_pixels, network_input


def make_set(**changes):
    options = {
        "images": np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1),
        "labels": np.array([1, 0]),
        "image_ids": np.array([10, 11]),
        "class_names": ("a", "b"),
        "source": "somewhere",
    }
    return ImageSet(**(options | changes))


def test_take_keeps_images_labels_ids_and_file_sizes_together():
    taken = make_set(file_bytes=np.array([100, 90])).take(np.array([1]))
    assert len(taken) == 1
    assert taken.images[0, 0, 0, 0] == 16
    assert (taken.labels[0], taken.image_ids[0], taken.file_bytes[0]) == (0, 11, 90)
    assert taken.native_bytes == 4 * 4 * 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "images must be uint8 of shape"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, "images must be uint8 of shape"),
        ({"images": np.zeros((2, 4, 4, 3), np.float32)}, "not float32 of shape"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, "N of 1 and up"),
        ({"labels": np.array([1])}, "2 images need as many labels and image ids"),
        ({"image_ids": np.array([[1, 2]])}, "2 images need as many labels and image ids"),
        ({"labels": np.array([1, 2])}, "a label is outside 0 to 1"),
        ({"labels": np.array([-1, 0])}, "a label is outside 0 to 1"),
    ],
)
def test_sets_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(PrepError, match=f"somewhere: .*{message}"):
        make_set(**changes)


def test_grey_becomes_three_equal_channels_between_0_and_1():
    pixels = network_input(np.array([0, 255, 51, 102], np.uint8).reshape(1, 2, 2, 1), 2)
    assert pixels.shape == (1, 3, 2, 2)
    expected = torch.tensor([[0, 1], [0.2, 0.4]])
    assert all(torch.allclose(channel, expected) for channel in pixels[0])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [6, 32])
def test_resizing_keeps_channels_range_and_flat_areas(interpolation, size):
    images = np.zeros((2, 20, 12, 3), np.uint8)
    images[..., 1] = 255
    images[1, :10] = 255
    pixels = network_input(images, size, interpolation)
    assert pixels.shape == (2, 3, size, size)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    torch.testing.assert_close(pixels[0].mean((1, 2)), torch.tensor([0.0, 1.0, 0.0]))


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(PrepError, match="'nearest' is unknown: use bicubic or bilinear"):
        network_input(make_set().images, 8, "nearest")


def test_pixels_under_dropped_patches_become_zero():
    """4 x 4 pixels in 2 x 2 patches; keeping patches 0 and 3 leaves two corner blocks."""
    images = np.full((1, 4, 4, 1), 9, np.uint8)
    shown = masked_pixels(images, (2, 2), np.array([[0, 3]]))[0, :, :, 0]
    assert shown.tolist() == [[9, 9, 0, 0], [9, 9, 0, 0], [0, 0, 9, 9], [0, 0, 9, 9]]


def test_a_pixel_belongs_to_the_patch_under_its_centre():
    """5 pixels under 2 patches: centres .5 1.5 2.5 3.5 4.5, the border is 2.5."""
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


@given(side=st.integers(1, 6), pixels=st.integers(1, 5), data=st.data())
def test_where_patches_are_whole_pixels_the_bytes_are_those_left_in_the_image(side, pixels, data):
    kept = data.draw(st.sets(st.integers(0, side * side - 1), min_size=1))
    images = np.ones((1, side * pixels, side * pixels, 3), np.uint8)
    shown = masked_pixels(images, (side, side), np.array([sorted(kept)]))
    assert shown.sum() == masked_bytes(images[0].size, side * side, len(kept))
