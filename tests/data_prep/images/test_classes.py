import json

import numpy as np
import pytest

from data_prep import PrepError
from data_prep.images.classes import (
    apply_classes,
    check_same_classes,
    in_order,
    read_classes,
    write_classes,
)
from data_prep.images.image_set import ImageSet
from flower_ist.files import NotWrittenError


def images(labels, names):
    return ImageSet(
        images=np.zeros((len(labels), 4, 4, 1), np.uint8),
        labels=np.array(labels),
        image_ids=np.arange(len(labels)),
        class_names=names,
        source="camera",
    )


def test_a_schema_comes_back_in_its_order_and_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "classes.json"
    write_classes(path, ["dog", "cat", "Kühe"])
    assert read_classes(path) == ("dog", "cat", "Kühe")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content == {
        "format": "flower-ist-classes",
        "version": 1,
        "classes": ["dog", "cat", "Kühe"],
    }
    write_classes(path, ["one"])
    assert read_classes(path) == ("one",)
    assert [entry.name for entry in path.parent.iterdir()] == ["classes.json"]


def test_labels_follow_the_schema_and_absent_classes_are_fine():
    """cat, dog = 0, 1 become cat = 2, dog = 0; no image is of the fox, 1."""
    data = apply_classes(images([0, 1, 1], ("cat", "dog")), ["dog", "fox", "cat"])
    assert data.labels.tolist() == [2, 0, 0]
    assert data.class_names == ("dog", "fox", "cat")


def test_a_class_without_images_may_be_missing_from_the_schema():
    data = apply_classes(images([1], ("cat", "dog")), ["dog"])
    assert data.labels.tolist() == [0]


def test_images_of_another_class_are_refused_with_what_differs():
    with pytest.raises(
        PrepError,
        match=r"camera has images of the class 'cow', which the class schema lacks .it has 2.:",
    ):
        apply_classes(images([0, 2], ("cat", "dog", "cow")), ["fox", "cat"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "names no class"),
        (["a", ""], "must be a text that is not empty"),
        (["a", 3], "must be a text that is not empty"),
        (["a", "b", "a"], "names the class 'a' twice"),
    ],
)
def test_names_that_are_not_distinct_texts_are_refused(tmp_path, names, message):
    path = tmp_path / "classes.json"
    with pytest.raises(PrepError, match=message):
        write_classes(path, names)
    assert not path.exists()
    path.write_text(json.dumps({"format": "flower-ist-classes", "version": 1, "classes": names}))
    with pytest.raises(PrepError, match=message):
        read_classes(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not a JSON file"),
        ("[" * 100_000, "is not a JSON file"),
        ("[]", "is not a class schema"),
        ('{"format": "other"}', "is not a class schema"),
        ('{"format": "flower-ist-classes", "version": 2}', "of version 2, but this release"),
        ('{"format": "flower-ist-classes", "version": 1}', "needs the entry classes"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(PrepError, match=message):
        read_classes(tmp_path / "a.json")


def test_files_that_cannot_be_read_or_written_are_one_sentence(tmp_path):
    with pytest.raises(PrepError, match=r"none.json cannot be read: No such file or directory\.$"):
        read_classes(tmp_path / "none.json")
    (tmp_path / "file").touch()
    with pytest.raises(NotWrittenError, match="cannot be written"):
        write_classes(tmp_path / "file" / "classes.json", ["a"])


def test_names_that_are_all_numbers_are_ordered_as_numbers():
    assert in_order(["10", "9", "2", "2"]) == ("2", "9", "10")
    assert in_order(["10", "9", "b"]) == ("10", "9", "b")
    assert in_order(["01", "1", "0"]) == ("0", "01", "1")


def test_a_class_in_one_split_only_is_named_with_both_places():
    check_same_classes({"a", "b"}, ("b", "a"), "one", "two")
    with pytest.raises(PrepError, match="class 'c' is in two but not in one: add its images"):
        check_same_classes({"a"}, {"a", "c"}, "one", "two")
