import numpy as np
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.patches.settings import MaskSettings
from data_prep.patches.write import write_masked
from data_prep.sources.open import left_out_tests, read_source, read_train_and_test


def save(path, **arrays):
    defaults = {"x": np.zeros((4, 5, 6), np.uint8), "y": np.array([0, 2, 1, 2], np.uint8)}
    np.savez(path, **(defaults | arrays))
    return path


def test_a_second_set_of_other_classes_is_refused(tmp_path):
    one = save(tmp_path / "one.npz", class_names=np.array(["a", "b", "c"]))
    two = save(tmp_path / "two.npz", class_names=np.array(["a", "b", "d"]))
    with pytest.raises(PrepError, match="class 'c' is in the training images but not in the test"):
        read_train_and_test(one, two, 0.2, seed=0)
    with pytest.raises(PrepError, match=r"images of the class 'd', which the class schema lacks"):
        read_train_and_test(one, two, 0.2, 0, classes=("c", "b", "a"))
    train, test = read_train_and_test(one, two, 0.2, 0, classes=("d", "c", "b", "a"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([3, 1, 2, 1], [3, 0, 2, 0])


def test_any_source_holds_out_the_same_share_of_each_class(tmp_path):
    labels = np.array([0] * 20 + [1] * 10)
    file = save(tmp_path / "set.npz", x=np.zeros((30, 2, 2), np.uint8), y=labels)
    test = read_train_and_test(str(file), None, 0.1, seed=0)[1]
    assert np.bincount(test.labels).tolist() == [2, 1]


def test_published_test_images_that_are_left_out_are_told_of(fashion_folder, tmp_path):
    """Fashion-MNIST's, a folder's, a table's; a share that could be held out is none."""
    for name in ("train/a/0", "train/b/0", "test/a/0", "test/b/0"):
        file = tmp_path / "set" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(file)
    (tmp_path / "t.csv").write_text("path,label,split\na,x,train\nb,x,test\nc,x,val\n")
    sets = read_train_and_test(tmp_path / "set", None, 0.2, 0)
    settings = MaskSettings(image_size=4, patch_size=2)
    write_masked(sets[0], tmp_path / "both", settings, test=sets[1])
    write_masked(sets[0], tmp_path / "one", settings)
    for source in (fashion_folder, tmp_path / "set", tmp_path / "t.csv", tmp_path / "both"):
        sentence = f"--test-share 0 leaves out the test images of {source}."
        assert left_out_tests(source) == sentence
    without = (save(tmp_path / "set.npz"), tmp_path / "one", tmp_path / "set" / "train")
    assert [left_out_tests(source) for source in without] == ["", "", ""]
    for file in fashion_folder.glob("t10k-*"):
        file.unlink()
    assert left_out_tests(fashion_folder) == ""  # a device has none, and its images are whole


def test_sources_that_cannot_be_read_are_refused(tmp_path):
    for name in ("none.npz", "bad.npz"):
        if name == "bad.npz":
            (tmp_path / name).write_bytes(b"PK\x03\x04 not a zip")
        with pytest.raises(PrepError, match=r"is not a readable \.npz file"):
            read_source(tmp_path / name)
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(PrepError, match="must hold the arrays x"):
        read_source(tmp_path / "other.npz")
    with pytest.raises(PrepError, match=r"images.zip is no source of images: give a folder"):
        read_source(tmp_path / "images.zip")


def test_a_lone_npz_holds_a_share_out_and_a_second_one_is_taken_whole(tmp_path):
    file = save(tmp_path / "set.npz")
    train, test = read_train_and_test(file, None, 0.25, seed=0)
    assert (len(train), len(test), test.split) == (3, 1, "test")
    assert set(train.image_ids) | set(test.image_ids) == {0, 1, 2, 3}
    train, test = read_train_and_test(file, file, 0.25, seed=0)
    assert (len(train), len(test), test.split) == (4, 4, "test")
