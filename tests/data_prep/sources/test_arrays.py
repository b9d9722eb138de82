import gzip

import numpy as np
import pytest

from data_prep import PrepError
from data_prep.sources.arrays import NpzSource, read_idx
from data_prep.sources.open import read_source, read_train_and_test


def test_fashion_mnist_from_idx_files_gzipped_or_not(fashion_folder):
    train, test = read_train_and_test(fashion_folder, None, 0.2, seed=0)
    assert train.images.shape == (40, 8, 8, 1)
    assert (train.split, test.split) == ("train", "test")
    assert test.labels.tolist() == list(range(10)) * 2
    assert train.image_ids.tolist() == list(range(40))
    assert train.class_names[9] == "Ankle boot"


def test_fashion_mnist_lacking_a_file_or_split_is_refused(fashion_folder):
    (fashion_folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(PrepError, match=r"lacks t10k-labels-idx1-ubyte\[.gz\]"):
        read_source(fashion_folder, "test")
    with pytest.raises(PrepError, match="splits train and test, not 'valid'"):
        read_source(fashion_folder, "valid")


def test_idx_by_hand(tmp_path):
    """Two zeros, type 8, 2 axes, sizes 2 and 3 in 4 big-endian bytes, then 6 bytes."""
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content))
    for name in ("a", "a.gz"):
        assert read_idx(tmp_path / name).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"", "is not an idx file of bytes"),
        ("a", bytes([0, 0, 13, 1, 0, 0, 0, 1, 9]), "is not an idx file of bytes"),
        ("a", bytes([0, 0, 8, 2, 0, 0, 0, 1]), "has 0 bytes of data"),
        ("a", bytes([0, 0, 8, 1, 0, 0, 0, 2, 9]), r"has 1 bytes of data, which is not \[2\]"),
        ("a", bytes([0, 0, 8, 2, *[255] * 8, 9]), "has 1 bytes of data"),
        ("a.gz", b"\x1f\x8b not gzip", "cannot be read"),
        ("a.gz", gzip.compress(bytes(100))[:-9], "cannot be read"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PrepError, match=message):
        read_idx(tmp_path / name)


def save(path, **arrays):
    defaults = {"x": np.zeros((4, 5, 6), np.uint8), "y": np.array([0, 2, 1, 2], np.uint8)}
    np.savez(path, **(defaults | arrays))
    return path


def test_a_gray_npz_gets_ids_and_class_names(tmp_path):
    data = read_source(save(tmp_path / "set.npz"))
    assert data.images.shape == (4, 5, 6, 1)
    assert data.image_ids.tolist() == [0, 1, 2, 3]
    assert data.class_names == ("0", "1", "2")
    assert data.source == "set"


def test_an_npz_may_name_its_classes_and_positions(tmp_path):
    file = save(
        tmp_path / "set.npz",
        x=np.zeros((4, 5, 6, 3), np.uint8),
        index=np.array([9, 7, 5, 3], np.int32),
        class_names=np.array(["a", "b", "c", "d"]),
    )
    data = read_source(file)
    assert data.image_ids.tolist() == [9, 7, 5, 3]
    assert data.class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 5, 6), np.float32)}, "images must be uint8"),
        ({"x": np.zeros((4, 5), np.uint8)}, "images must be uint8"),
        ({"x": np.zeros((3, 5, 6), np.uint8)}, "3 images need as many labels"),
        ({"y": np.zeros(4)}, "y must hold one whole number"),
        ({"y": np.array([0, 1, 2, -1])}, "y must hold one whole number"),
        ({"index": np.array([0, 1, 2, -1])}, "index must hold whole numbers of 0 and up"),
        ({"index": np.array([0])}, "4 images need as many labels and image ids"),
        ({"class_names": np.array(["a"])}, "a label is outside 0 to 0"),
        ({"x": np.array([{}], dtype=object)}, "is not a readable .npz file of plain arrays"),
    ],
)
def test_npz_files_of_another_form_are_refused(tmp_path, arrays, message):
    with pytest.raises(PrepError, match=message):
        read_source(save(tmp_path / "set.npz", **arrays))


def test_a_file_that_is_no_archive_is_not_called_a_pickle_to_trust(tmp_path):
    (tmp_path / "set.npz").write_bytes(b"hello")
    with pytest.raises(PrepError, match=r"it is no zip archive, or one that was cut off\.$"):
        read_source(tmp_path / "set.npz")


@pytest.mark.parametrize(
    ("labels", "numbered", "names"),
    [
        ([1, 3, 2, 1], [0, 2, 1, 0], ("1", "2", "3")),
        ([0, 255, 7, 0], [0, 2, 1, 0], ("0", "7", "255")),
    ],
)
def test_labels_that_leave_numbers_out_make_no_phantom_classes(tmp_path, labels, numbered, names):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2, 2), np.uint8), y=np.array(labels))
    data = NpzSource(tmp_path / "a.npz").read("train")
    assert (data.labels.tolist(), data.class_names) == (numbered, names)


def test_a_column_of_labels_is_read_and_other_arrays_are_said_to_be_left_out(tmp_path):
    images = np.zeros((2, 2, 2), np.uint8)
    np.savez(tmp_path / "a.npz", x=images, y=np.array([[1], [0]]), x_test=images, y_test=images)
    data = NpzSource(tmp_path / "a.npz").read("train")
    assert data.labels.tolist() == [1, 0]
    assert data.left_out == (f"The arrays x_test, y_test of {tmp_path / 'a.npz'} are left out.",)


def test_pointers_of_git_lfs_are_called_so(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / "a.npz").write_text(pointer)
    with pytest.raises(PrepError, match="it is a pointer of git-lfs"):
        NpzSource(tmp_path / "a.npz").read("train")
    (tmp_path / "images").write_text(pointer)
    with pytest.raises(PrepError, match="it is a pointer of git-lfs"):
        read_idx(tmp_path / "images")
