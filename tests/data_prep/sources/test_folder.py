import os
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep import PrepError
from data_prep.images import decode as image_files
from data_prep.images.pixels import network_input
from data_prep.sources.open import read_source, read_train_and_test


def fill(root, counts, size=(6, 4), extension="png"):
    """Write ``counts`` gray images a class; every pixel of image k of class c is 50 c + k."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for k in range(count):
            Image.new("L", size, 50 * label + k).save(root / name / f"{k}.{extension}")
    return root


def paths_of(data):
    return [data.images.reader.paths[index] for index in data.images.indices]


def test_classes_are_sorted_names_and_ids_positions_in_the_sorted_paths(tmp_path):
    """'a-b/0.png' sorts before 'a/0.png', as '-' comes before '/'; the class 'a' comes first."""
    root = fill(tmp_path / "pets", {"a": 2, "a-b": 1, "Z": 1})
    data = read_source(root)
    assert data.class_names == ("Z", "a", "a-b")
    assert [path.relative_to(root).as_posix() for path in paths_of(data)] == [
        "Z/0.png",
        "a-b/0.png",
        "a/0.png",
        "a/1.png",
    ]
    assert data.labels.tolist() == [0, 2, 1, 1]
    assert data.image_ids.tolist() == [0, 1, 2, 3]
    assert (data.source, data.split, data.skipped) == ("pets", "train", ())
    # 6 x 4 gray pixels a file.
    assert data.native_bytes == 4 * 24
    assert data.file_bytes.tolist() == [path.stat().st_size for path in paths_of(data)]


def test_a_batch_holds_any_sizes_and_equals_images_resized_alone(tmp_path):
    root = fill(tmp_path / "set", {"a": 1, "b": 1})
    rgb = np.random.default_rng(0).integers(0, 256, (9, 5, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(root / "a" / "1.png")
    data = read_source(root)
    batch = data.take(np.arange(0, 2)).network_input(8)
    assert batch.shape == (2, 3, 8, 8)
    assert torch.equal(batch[1:], network_input(rgb[None], 8))
    assert torch.equal(batch[0], torch.zeros(3, 8, 8, dtype=torch.uint8))
    assert data.native_bytes == 24 + 9 * 5 * 3 + 24
    with pytest.raises(PrepError, match=r"set has images of \(4, 6, 1\) and of \(9, 5, 3\) pixels"):
        data.take(np.arange(3)).native_pixels()
    assert data.take(np.array([2])).native_pixels()[0, 0, 0].tolist() == [50]


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_published_split_is_taken(tmp_path, name):
    fill(tmp_path / "set" / "train", {"a": 2, "b": 3})
    fill(tmp_path / "set" / name, {"a": 1, "b": 1})
    train, test = read_train_and_test(tmp_path / "set", None, 0.2, seed=0)
    assert (len(train), len(test), train.split, test.split) == (5, 2, "train", "test")
    assert train.class_names == test.class_names == ("a", "b")
    assert test.image_ids.tolist() == [0, 1]
    assert test.source == "set"


def test_a_published_test_split_comes_before_val(tmp_path):
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        fill(tmp_path / name, {"a": count})
    assert len(read_source(tmp_path, "test")) == 1


def test_a_class_in_one_split_only_is_named(tmp_path):
    fill(tmp_path / "train", {"a": 1, "b": 1})
    fill(tmp_path / "test", {"a": 1})
    with pytest.raises(PrepError, match=r"class 'b' is in .*train but not in .*test: add"):
        read_source(tmp_path)
    fill(tmp_path / "test", {"b": 1, "c": 1})
    with pytest.raises(PrepError, match=r"class 'c' is in .*test but not in .*train: add"):
        read_source(tmp_path, "test")


def test_without_a_published_split_a_share_of_each_class_is_held_out(tmp_path):
    root = fill(tmp_path / "set", {"a": 10, "b": 5})
    train, test = read_train_and_test(root, None, 0.2, seed=3)
    assert np.bincount(train.labels).tolist() == [8, 4]
    assert np.bincount(test.labels).tolist() == [2, 1]
    assert sorted([*train.image_ids, *test.image_ids]) == list(range(15))
    again = read_train_and_test(root, None, 0.2, seed=3)[1]
    np.testing.assert_array_equal(again.image_ids, test.image_ids)
    assert [path.stem for path in paths_of(test)] == [
        str(image_id % 10) for image_id in test.image_ids
    ]


def test_a_second_folder_is_taken_whole(tmp_path):
    one, two = (fill(tmp_path / name, {"a": 2, "b": 1}) for name in ("one", "two"))
    train, test = read_train_and_test(one, two, 0.2, seed=0)
    assert (len(train), len(test), test.split, test.source) == (3, 3, "test", "two")


def test_an_unreadable_file_stops_or_is_skipped_without_moving_other_ids(tmp_path):
    root = fill(tmp_path / "set", {"a": 3, "b": 1})
    (root / "a" / "1.png").write_bytes(b"damaged")
    with pytest.raises(PrepError, match=r"1\.png cannot be read .*; remove it or use --on-error"):
        read_source(root)
    data = read_source(root, on_error="skip")
    assert data.image_ids.tolist() == [0, 2, 3]
    assert data.labels.tolist() == [0, 0, 1]
    assert len(data.skipped) == 1
    assert str(root / "a" / "1.png") in data.skipped[0]
    (root / "b" / "0.png").write_bytes(b"damaged")
    with pytest.raises(PrepError, match=r"class 'b' in .*set has no readable image"):
        read_source(root, on_error="skip")
    with pytest.raises(PrepError, match="on error 'ignore' is unknown: use stop or skip"):
        read_source(root, on_error="ignore")


def test_folders_without_classes_or_images_are_refused(tmp_path):
    with pytest.raises(PrepError, match="has no class folders: put each class's images"):
        read_source(tmp_path)
    (tmp_path / "0.png").write_bytes(b"beside the class folders: passed over")
    (tmp_path / ".cache").mkdir()
    with pytest.raises(PrepError, match="has no class folders"):
        read_source(tmp_path)
    fill(tmp_path, {"a": 1, "b": 0})
    (tmp_path / "b" / ".hidden").touch()
    with pytest.raises(PrepError, match=r"class folder .*b is empty: add images or remove it"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("published", "first", "second"),
    [("NWPU-RESISC45", "airplane", "airport"), ("AID", "Airport", "BareLand")],
)
def test_resisc45_and_aid_are_read_as_published_and_from_the_folder_around_them(
    tmp_path, published, first, second
):
    for folder, name in ((first, "_1"), (second, "_2"), (second, "_3")):
        path = tmp_path / "data" / published / folder / f"{folder.lower()}{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "data" / "__MACOSX" / published).mkdir(parents=True)
    (tmp_path / "data" / "readme.txt").touch()
    for place in (tmp_path / "data" / published, tmp_path / "data", tmp_path):
        data = read_source(place)
        assert data.class_names == (first, second)
        assert data.labels.tolist() == [0, 1, 1]
        assert data.image_ids.tolist() == [0, 1, 2]
        assert data.source == published


@pytest.mark.parametrize("suffix", [".png", ""])
def test_a_lone_class_keeps_its_images_beside_a_folder(tmp_path, suffix):
    """Taken for a folder around the classes, it would be passed over for the folder inside it."""
    fill(tmp_path / "nest", {"cat": 6, "cat/rejected": 5})
    for path in (tmp_path / "nest" / "cat").glob("*.png"):
        path.rename(path.with_suffix(suffix))
    with pytest.raises(PrepError, match=r"class folder .*cat holds the folder rejected: put its"):
        read_source(tmp_path / "nest")


def test_a_folder_around_a_published_split_is_looked_into(tmp_path):
    fill(tmp_path / "set" / "train", {"a": 2})
    fill(tmp_path / "set" / "test", {"a": 1})
    train, test = read_train_and_test(tmp_path, None, 0.2, seed=0)
    assert (len(train), len(test), test.source) == (2, 1, "set")


def test_with_a_schema_a_device_may_lack_images_and_folders(tmp_path):
    fill(tmp_path / "train", {"b": 2, "c": 1, "empty": 0})
    fill(tmp_path / "test", {"c": 1})
    schema = ("c", "a", "b", "empty")
    train, test = read_train_and_test(tmp_path, None, 0.2, 0, classes=schema)
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 2, 0], [0])
    assert train.class_names == test.class_names == schema
    with pytest.raises(PrepError, match=r"class 'b', which the class schema lacks"):
        read_source(tmp_path, classes=("c", "a"))


def test_with_a_schema_the_share_held_out_is_the_same_as_without(tmp_path):
    root = fill(tmp_path / "set", {"a": 5, "b": 3, "c": 3})
    plain = read_train_and_test(root, None, 0.2, seed=3)[1]
    named = read_train_and_test(root, None, 0.2, seed=3, classes=("c", "b", "x", "a"))[1]
    assert plain.image_ids.tolist() == named.image_ids.tolist()


def test_class_folders_without_any_image_are_refused_under_a_schema_too(tmp_path):
    fill(tmp_path, {"a": 0, "b": 0})
    with pytest.raises(PrepError, match=r"No class folder in .* holds an image"):
        read_source(tmp_path, classes=("a", "b"))


def test_a_folder_inside_a_class_folder_is_refused(tmp_path):
    fill(tmp_path / "train", {"a": 1})
    with pytest.raises(PrepError, match=r"train holds the folder a: .* a train and a test folder"):
        read_source(tmp_path)


def test_no_more_than_one_native_image_is_in_memory(tmp_path):
    """12 images of 1000 x 1000 x 3 bytes would be 36 MB; one and its copies are at most 12 MB.

    Counted are Python's and numpy's bytes, where decoded images live; torch's are not traced.
    """
    root = tmp_path / "set"
    (root / "a").mkdir(parents=True)
    for k in range(12):
        Image.new("RGB", (1000, 1000), (k, k, k)).save(root / "a" / f"{k}.png")
    tracemalloc.start()
    data = read_source(root)
    batch = data.take(np.arange(0, 12)).network_input(8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch.shape == (12, 3, 8, 8)
    assert peak < 12_000_000


def test_decoding_waits_until_a_batch_is_asked_for(tmp_path, monkeypatch):
    root = fill(tmp_path / "set", {"a": 5})
    data = read_source(root)
    read = []
    original = image_files.ImageFiles.read

    def counted(self, index):
        read.append(original(self, index))
        return read[-1]

    monkeypatch.setattr(image_files.ImageFiles, "read", counted)
    data.take(np.array([4, 2]))
    assert not read
    data.take(np.arange(2, 4)).network_input(8)
    assert [pixels[0, 0, 0] for pixels in read] == [2, 3]


def test_what_is_neither_train_nor_test_is_said_to_be_left_out(tmp_path):
    for name in ("train", "valid", "test"):
        fill(tmp_path / name, {"a": 1, "b": 2})
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "train" / "notes.txt").write_text("hello")
    data = read_source(tmp_path)
    assert len(data) == 3
    assert data.left_out == (
        f"{tmp_path / 'valid'} is left out with its 3 files: only train and test are read.",
        f"1 file is left out beside the folders in {tmp_path}, such as README.txt.",
        f"1 file is left out beside the folders in {tmp_path / 'train'}, such as notes.txt.",
    )


def test_valid_is_the_test_split_where_there_is_no_other(tmp_path):
    for name in ("train", "valid"):
        fill(tmp_path / name, {"a": 1})
    train, test = read_train_and_test(tmp_path, None, 0.2, seed=0)
    assert (len(train), len(test), train.left_out) == (1, 1, ())


def test_a_class_folder_whose_name_is_no_text_is_found_before_an_image_is_opened(tmp_path):
    """The name is in Latin-1: its byte for e with an accent is no UTF-8."""
    fill(tmp_path, {"a": 1})
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    with open(os.path.join(folder, b"0.png"), "wb") as file:
        file.write(b"damaged")
    with pytest.raises(PrepError, match=r"class name 'caf\\\\xe9' holds bytes that are no UTF-8"):
        read_source(tmp_path)


def test_files_whose_names_are_no_text_are_read(tmp_path):
    fill(tmp_path, {"a": 1})
    odd = os.path.join(os.fsencode(tmp_path), b"a", b"caf\xe9.png")
    os.rename(next((tmp_path / "a").iterdir()), odd)
    assert len(read_source(tmp_path)) == 1
