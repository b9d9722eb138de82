import numpy as np
import pytest

from data_prep import PrepError
from data_prep.images.image_set import ImageSet


def make_set(**changes):
    options = {
        "images": np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1),
        "labels": np.array([1, 0]),
        "image_ids": np.array([10, 11]),
        "class_names": ("a", "b"),
        "source": "somewhere",
    }
    return ImageSet(**(options | changes))


def test_take_keeps_everything_of_an_image_together():
    data = make_set(
        file_bytes=np.array([100, 90]),
        owners=np.array(["ann", "bob"]),
        masked_bytes=np.array([8, 9]),
    )
    taken = data.take(np.array([1]))
    assert (taken.owners[0], taken.masked_bytes[0]) == ("bob", 9)
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
        ({"owners": np.array(["a"])}, r"2 images need as many owners, not \(1,\)"),
        ({"masked_bytes": np.array([1])}, "2 images need as many masked_bytes"),
        ({"labels": np.array([1, 2])}, "a label is outside 0 to 1"),
        ({"labels": np.array([-1, 0])}, "a label is outside 0 to 1"),
    ],
)
def test_sets_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(PrepError, match=f"somewhere: .*{message}"):
        make_set(**changes)


def test_images_are_found_by_id_and_class_in_any_order():
    data = make_set()
    assert data.find(np.array([11, 10, 11]), np.array(["a", "b", "a"])).tolist() == [1, 0, 1]
    for wrong in (([12], ["a"]), ([10], ["a"]), ([9], ["b"])):
        with pytest.raises(PrepError, match=r"somewhere \(train\) has no image \d+ of class"):
            data.find(np.array(wrong[0]), np.array(wrong[1]))
